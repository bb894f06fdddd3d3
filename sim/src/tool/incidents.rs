//! `surus-sim incidents`: the table of incidents.

use std::fs;

use surus_sim::incidents;

use crate::Trouble;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write it to scenarios/INCIDENTS.md of the source tree this was built from
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let table = incidents::table()?;
    if args.write {
        fs::write(incidents::file(), table)?;
    } else {
        print!("{table}");
    }
    Ok(false)
}
