//! One connection: the simple and the extended protocol over the model.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use surus::postgres::site::Configuration;

use super::super::host::Inside;
use super::super::hub::Hub;
use super::super::net::Stream;
use super::statements::{Answer, Failure, answer, describe};
use super::wire::{Said, Wire};

/// A statement with its parameters, ready to run.
struct Portal {
    sql: String,
    parameters: Vec<Option<Vec<u8>>>,
    binary: bool,
}

/// Serves a connection to its end.
pub(super) async fn serve(hub: &Arc<Hub>, host: usize, stream: Stream) -> io::Result<()> {
    let (mut wire, parameters) = Wire::accept(stream).await?;
    let superuser = parameters.chunks(2).any(|pair| pair == ["user", "postgres"]);
    let refusal = hub.look(host, |inside| {
        let making = |written: &Configuration| written.first_hba.is_some();
        let making = inside.configuration.as_ref().is_some_and(making);
        if !superuser && (making || inside.keeps_out()) {
            return Some(Failure::new("28000", "no pg_hba.conf entry"));
        }
        if inside.refusing {
            return Some(Failure::new("53300", "sorry, too many clients already"));
        }
        inside.server.in_recovery().err().map(Failure::from)
    });
    if let Some(failure) = refusal {
        wire.error("FATAL", failure.code, &failure.text);
        return wire.flush().await;
    }
    wire.welcome(4242);
    wire.flush().await?;
    let mut statements: BTreeMap<String, String> = BTreeMap::new();
    let mut portals: BTreeMap<String, Portal> = BTreeMap::new();
    // After an error everything up to the next Sync is passed over.
    let mut failed = false;
    loop {
        let said = wire.next().await?;
        if !superuser && hub.look(host, Inside::keeps_out) {
            wire.error(
                "FATAL",
                "57P01",
                "terminating connection due to administrator command",
            );
            return wire.flush().await;
        }
        if failed && !matches!(said, Said::Sync | Said::Terminate) {
            continue;
        }
        match said {
            Said::Query(sql) => {
                match answer(hub, host, &sql, &[]).await {
                    Ok(answer) => {
                        if !answer.columns.is_empty() {
                            wire.columns(answer.columns, false);
                        }
                        tell(&mut wire, &answer, false);
                    }
                    Err(failure) => wire.error("ERROR", failure.code, &failure.text),
                }
                wire.ready();
                wire.flush().await?;
            }
            Said::Parse { name, sql } => {
                if describe(&sql).is_some() {
                    statements.insert(name, sql);
                    wire.bare(b'1');
                } else {
                    failed = true;
                    wire.error("ERROR", "42601", &format!("the model does not know: {sql}"));
                }
            }
            Said::Describe { statement, name } => {
                let sql = if statement {
                    statements.get(&name)
                } else {
                    portals.get(&name).map(|portal| &portal.sql)
                };
                let (parameters, columns) = sql.and_then(|sql| describe(sql)).unwrap_or_default();
                if statement {
                    wire.parameters(parameters);
                }
                wire.columns(columns, true);
            }
            Said::Bind {
                portal,
                statement,
                parameters,
                binary,
            } => {
                let sql = statements.get(&statement).cloned().unwrap_or_default();
                let bound = Portal {
                    sql,
                    parameters,
                    binary,
                };
                portals.insert(portal, bound);
                wire.bare(b'2');
            }
            Said::Execute { portal } => {
                if let Some(Portal {
                    sql,
                    parameters,
                    binary,
                }) = portals.remove(&portal)
                {
                    match answer(hub, host, &sql, &parameters).await {
                        Ok(answer) => tell(&mut wire, &answer, binary),
                        Err(failure) => {
                            failed = true;
                            wire.error("ERROR", failure.code, &failure.text);
                        }
                    }
                }
            }
            Said::Close { statement, name } => {
                if statement {
                    statements.remove(&name);
                } else {
                    portals.remove(&name);
                }
                wire.bare(b'3');
            }
            Said::Sync => {
                failed = false;
                wire.ready();
                wire.flush().await?;
            }
            Said::Flush => wire.flush().await?,
            Said::Terminate => return Ok(()),
        }
    }
}

fn tell(wire: &mut Wire, answer: &Answer, binary: bool) {
    for row in &answer.rows {
        wire.row(row, binary);
    }
    wire.complete(&format!("SELECT {}", answer.rows.len()));
}
