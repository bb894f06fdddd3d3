//! `surus-sim determinism`: the same seed gives the same bytes, in two processes.

use std::ops::Range;
use std::process::Command;

use surus_sim::record::Keep;

use crate::Trouble;
use crate::subject::Setting;
use crate::sweep;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The seeds, FIRST..END without END
    #[arg(long, default_value = "0..20", value_parser = sweep::seeds)]
    seeds: Range<u64>,
    /// Print the traces' hashes and lengths, and compare nothing: what the second process does
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    setting: Setting,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    if args.print {
        for seed in args.seeds.clone() {
            println!("{}", print(args, seed));
        }
        return Ok(false);
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["determinism", "--print", "--seeds"]);
    command.arg(format!("{}..{}", args.seeds.start, args.seeds.end));
    let (world, network) = args.setting.world().arguments();
    command.args(["--world", world]);
    if let Some(network) = network {
        command.args(["--network", network]);
    }
    if let Some(nodes) = args.setting.nodes {
        command.arg("--nodes").arg(nodes.to_string());
    }
    if args.setting.synchronous {
        command.arg("--synchronous");
    }
    if let Some(bug) = args.setting.bug {
        command.arg("--bug").arg(bug.name());
    }
    // Other addresses and another environment: nothing of that may show.
    command.env("SURUS_SIM_DETERMINISM", "x".repeat(4096));
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("the second process ended with {}", output.status).into());
    }
    let theirs = String::from_utf8_lossy(&output.stdout);
    let mut theirs = theirs.lines();
    for seed in args.seeds.clone() {
        let ours = print(args, seed);
        let theirs = theirs.next().unwrap_or("nothing");
        if ours != theirs {
            println!("seed {seed} differs between two processes\n  here   {ours}\n  there  {theirs}");
            return Ok(true);
        }
    }
    let count = args.seeds.end - args.seeds.start;
    println!("{count} seeds, each in two processes: every byte of the traces is the same");
    Ok(false)
}

/// A run's hash, and a hash of the text of its trace.
fn print(args: &Args, seed: u64) -> String {
    let outcome = args.setting.job(seed).run(Keep::Facts);
    let mut text = 0xcbf2_9ce4_8422_2325_u64;
    let mut length = 0;
    for line in outcome.lines() {
        length += line.len();
        for byte in line.bytes() {
            text = (text ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{seed} {:016x} {text:016x} {length}", outcome.hash)
}
