//! `surus-sim coverage`: what a range of seeds reached, and what it never did.

use std::ops::{ControlFlow, Range};

use crate::Trouble;
use crate::style::{Ink, Paint};
use crate::subject::Setting;
use crate::sweep::{self, Options};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The seeds, FIRST..END without END
    #[arg(long, default_value = "0..1000", value_parser = sweep::seeds)]
    seeds: Range<u64>,
    /// Which rule each guard stopped, as well
    #[arg(long)]
    pairs: bool,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let paint = Paint::stdout();
    let swept = args.options.sweep(
        args.seeds.clone(),
        |seed| args.setting.job(seed),
        |_, _, _| Ok(ControlFlow::Continue(())),
    )?;
    let coverage = &swept.tally.coverage;
    println!(
        "{} runs, seeds {}..{}",
        swept.tally.runs, args.seeds.start, swept.next
    );
    for table in coverage.tables() {
        println!("\n{}", paint.ink(Ink::Strong, table.name));
        let mut rows: Vec<_> = table.rows.iter().filter(|(_, count)| *count != 0).collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in rows {
            println!("{count:>12}  {name}");
        }
        let never: Vec<&str> = table.never().collect();
        if !never.is_empty() {
            println!("{:>12}  {}", "never", paint.ink(Ink::Fault, never.join(", ")));
        }
    }
    if args.pairs {
        println!("\n{}", paint.ink(Ink::Strong, "rules and what stopped them"));
        for ((rule, guard), count) in &coverage.guards {
            println!("{count:>12}  {} {}: {guard}", rule.code(), rule.name());
        }
    }
    Ok(false)
}
