//! Physical replication slots, and checkpoints: housekeeping inside a running server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::types::Lsn;
use tokio_postgres::Client;

use super::error::report;
use super::{Error, Postgres, sql};

/// One statement on slots. Creation waits for nothing; advancing a slot is a write of one small file.
const LIMIT: Duration = Duration::from_secs(5);

/// A slot as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    physical: bool,
    active: bool,
    restart: Option<Lsn>,
    xmin: bool,
    lost: bool,
}

impl Postgres {
    /// Makes the physical slots `ensure` exist, advances inactive ones, and drops those of `drop` that are physical and inactive.
    pub async fn sync_slots(
        &self,
        ensure: &BTreeMap<String, Option<Lsn>>,
        drop: &BTreeSet<String>,
    ) -> Outcome {
        report("slots", self.slots_to(ensure, drop).await, |()| Outcome::Ok)
    }

    async fn slots_to(
        &self,
        ensure: &BTreeMap<String, Option<Lsn>>,
        drop: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let session = self.connect("Surus slots", LIMIT).await?;
        let client = &session.client;
        let (known, end) = read(client).await?;
        let mut problems = Vec::new();
        for name in drop {
            let droppable = known.get(name).is_some_and(|slot| slot.physical && !slot.active);
            if droppable && let Err(error) = drop_slot(client, name).await {
                problems.push(format!("{name}: {}", error.chain()));
            }
        }
        for (name, position) in ensure {
            if let Err(error) = keep(client, name, *position, known.get(name), end).await {
                problems.push(format!("{name}: {}", error.chain()));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Condition(problems.join("; ")))
    }

    /// Runs a checkpoint, so that the control file shows the timeline.
    pub async fn checkpoint(&self) -> Outcome {
        report("checkpoint", self.run_checkpoint().await, |()| Outcome::Ok)
    }

    pub(super) async fn run_checkpoint(&self) -> Result<(), Error> {
        let session = self.connect("Surus checkpoint", Duration::ZERO).await?;
        session
            .client
            .batch_execute(sql::CHECKPOINT)
            .await
            .map_err(Error::query("run a checkpoint"))
    }
}

/// The slots, and the position up to which one may be advanced.
async fn read(client: &Client) -> Result<(BTreeMap<String, Slot>, Lsn), Error> {
    let rows = client
        .query(sql::SLOTS, &[])
        .await
        .map_err(Error::query("list its slots"))?;
    let mut slots = BTreeMap::new();
    for row in rows {
        let restart: Option<String> = row.get(3);
        slots.insert(
            row.get(0),
            Slot {
                physical: row.get(1),
                active: row.get(2),
                restart: restart.as_deref().and_then(Lsn::parse),
                xmin: row.get(4),
                lost: row.get(5),
            },
        );
    }
    let end = client
        .query_one(sql::POSITION, &[])
        .await
        .map_err(Error::query("tell its position"))?;
    let end: Option<String> = end.get(0);
    Ok((slots, end.as_deref().and_then(Lsn::parse).unwrap_or_default()))
}

async fn keep(
    client: &Client,
    name: &str,
    position: Option<Lsn>,
    slot: Option<&Slot>,
    end: Lsn,
) -> Result<(), Error> {
    let mut slot = slot;
    if let Some(known) = slot {
        if !known.physical {
            return Err(Error::Condition(
                "a logical slot has the name that a member's slot must have; rename one of them".to_owned(),
            ));
        }
        // An idle slot that holds back vacuum, has lost its WAL or reserves none is worth less than a fresh one.
        if !known.active && (known.xmin || known.lost || known.restart.is_none()) {
            tracing::info!(
                slot = name,
                xmin = known.xmin,
                lost = known.lost,
                "made an unusable slot anew"
            );
            drop_slot(client, name).await?;
            slot = None;
        }
    }
    let Some(known) = slot else {
        client
            .execute(sql::CREATE_SLOT, &[&name])
            .await
            .map_err(Error::query("create the slot"))?;
        tracing::info!(slot = name, "created a slot");
        return Ok(());
    };
    let Some(target) = position.map(|position| position.min(end)) else {
        return Ok(());
    };
    if !known.active && known.restart.is_some_and(|restart| restart < target) {
        client
            .execute(sql::ADVANCE_SLOT, &[&name, &target.to_string()])
            .await
            .map_err(Error::query("advance the slot"))?;
    }
    Ok(())
}

async fn drop_slot(client: &Client, name: &str) -> Result<(), Error> {
    client
        .execute(sql::DROP_SLOT, &[&name])
        .await
        .map_err(Error::query("drop the slot"))?;
    tracing::info!(slot = name, "dropped a slot");
    Ok(())
}
