//! `surus-sim run`: many seeds.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use surus_sim::campaign::{Bugs, Progress, Tally};

use crate::Trouble;
use crate::style::{Ink, Paint};
use crate::subject::Setting;
use crate::sweep::{self, Options, Swept};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The seeds, FIRST..END without END
    #[arg(long, default_value = "0..1000", value_parser = sweep::seeds)]
    seeds: Range<u64>,
    /// Go on where the last sweep in this world ended, with its range of seeds
    #[arg(long, conflicts_with = "seeds")]
    resume: bool,
    /// Stop after so many failures
    #[arg(long, default_value_t = 20)]
    failures: u64,
    /// Where failures are kept
    #[arg(long, default_value = "sim-bugs", value_name = "DIR")]
    bugs: PathBuf,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    options: Options,
}

/// A sweep says how far it is after so many seeds, so that even a SIGKILL loses little.
const NOTE: u64 = 500;

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let paint = Paint::stdout();
    let bugs = Bugs::at(&args.bugs);
    let world = args.setting.world();
    let (first, seeds) = if args.resume {
        let Some(last) = bugs.progress(world)? else {
            let place = args.bugs.display();
            return Err(format!(
                "nothing to resume: {place} has no {world}.progress; give --seeds FIRST..END"
            )
            .into());
        };
        if last.next == last.end {
            println!("seeds {}..{} are all done", last.first, last.end);
            return Ok(false);
        }
        (last.first, last.next..last.end)
    } else {
        (args.seeds.start, args.seeds.clone())
    };
    let note = |next: u64| {
        let end = seeds.end;
        bugs.note(world, &Progress { first, next, end })
    };
    let swept = args.options.sweep(
        seeds.clone(),
        |seed| args.setting.job(seed),
        |run, tally, line| {
            if let Some(violation) = &run.outcome.violation {
                let kept = bugs.keep(&run.job, violation)?;
                line.print(&format!(
                    "{} {}\n  {}\n  kept in {}",
                    paint.ink(Ink::Strong, format!("seed {}", run.job.seed)),
                    paint.ink(Ink::Bad, violation),
                    kept.replay,
                    kept.directory.display()
                ));
            }
            if tally.runs.is_multiple_of(NOTE) {
                note(run.job.seed + 1)?;
            }
            let enough = args.failures <= tally.failed();
            Ok(if enough {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        },
    )?;
    if swept.next < seeds.end || args.resume {
        note(swept.next)?;
    }
    summary(&swept, &seeds, paint);
    if swept.next < seeds.end {
        println!(
            "\nstopped at seed {} of {}..{}; `surus-sim run --resume` goes on",
            swept.next, seeds.start, seeds.end
        );
    }
    Ok(swept.tally.failed() != 0)
}

/// What it all came to.
fn summary(swept: &Swept, seeds: &Range<u64>, paint: Paint) {
    let Swept { tally, next, elapsed } = swept;
    let Tally {
        runs,
        simulated,
        events,
        acks,
        promotions,
        slowest,
        waited,
        violations,
        coverage,
        ..
    } = tally;
    let mut table = table();
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    row(
        "seeds",
        format!("{}..{next}, {runs} runs in {}", seeds.start, time(*elapsed)),
    );
    row("simulated", format!("{:.1} hours", *simulated as f64 / 3.6e12));
    row(
        "speed per core",
        format!(
            "{:.0} x real time, {:.2} million events/s",
            tally.speed(),
            tally.events_per_second() / 1e6
        ),
    );
    row("events", events.to_string());
    row("promotions", promotions.to_string());
    row("writes acknowledged", acks.to_string());
    row(
        "slowest recovery",
        format!("{:.0} s after the last fault", *slowest as f64 / 1e9),
    );
    if *waited != 0 {
        row(
            "not played to the end",
            format!("{waited}: they ask for what this world cannot do"),
        );
    }
    println!("{table}");
    let mut faults: Vec<_> = coverage.steps.iter().collect();
    faults.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let total: u64 = coverage.steps.values().sum();
    let list: Vec<String> = faults
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    println!("\n{total} faults and acts of people: {}", list.join(", "));
    if violations.is_empty() {
        println!(
            "\n{}",
            paint.ink(Ink::Good, format!("no violation in {runs} runs"))
        );
        return;
    }
    println!(
        "\n{}",
        paint.ink(
            Ink::Bad,
            format!("{} of {runs} runs broke an invariant", tally.failed())
        )
    );
    let mut table = crate::run::table();
    for (invariant, count) in violations {
        table.add_row([invariant.code(), &count.to_string(), invariant.words()]);
    }
    println!("{table}");
}

/// A table without lines.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// `2 min 3 s`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
