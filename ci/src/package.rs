//! The Debian package: built from the release binary, and tried where it will be installed.
//!
//! `package` builds the agent, lets it print its own man page and completions, and calls cargo-deb. `try-install` follows the README's
//! production section in a container of a Debian release that debootstrap builds, without systemd: the unit's `ExecStart` is run by hand.
//! A package runs on the release it was built on and on newer ones, because of glibc: build on the oldest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::images;
use crate::report::Report;
use crate::tool::{cargo, output, root, target};

/// The version of cargo-deb that the metadata was written for.
const CARGO_DEB: &str = "^3";
/// The unit that the package installs.
const UNIT: &str = "agent/debian/surus.service";

/// What `package` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Package {
    /// Take target/release/surus as it is
    #[arg(long)]
    no_build: bool,
}

/// What `try-install` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TryInstall {
    /// The releases to try
    #[arg(default_values_t = ["bookworm".to_owned(), "trixie".to_owned()])]
    releases: Vec<String>,
    /// The package; the newest in target/debian when not given
    #[arg(long)]
    deb: Option<PathBuf>,
}

/// Builds the package.
///
/// # Errors
/// When a program that takes part fails; its last words are in the error.
pub(crate) fn package(options: &Package, report: Report) -> Result<()> {
    let root = root()?;
    let target = target(&root);
    if !options.no_build {
        report.say("building the release binary");
        output(
            Command::new(cargo())
                .args(["build", "--release", "--locked", "-p", "surus"])
                .current_dir(&root),
        )?;
    }
    let surus = target.join("release/surus");
    let pages = root.join("target/package");
    let manual = pages.join("man");
    fs::create_dir_all(&manual).map_err(Error::io(|| format!("create {}", manual.display())))?;
    output(Command::new(&surus).arg("man").arg(&manual))?;
    for (shell, file) in [("bash", "surus.bash"), ("zsh", "_surus"), ("fish", "surus.fish")] {
        write(
            &pages.join(file),
            &output(Command::new(&surus).args(["completions", shell]))?,
        )?;
    }
    report.say("manual pages and completions printed by the binary itself");
    let tool = cargo_deb(&target, report)?;
    let deb = target.join("debian");
    // cargo-deb is called as cargo calls it; `--no-build` packs what is there.
    let args = ["deb", "--no-build", "--no-strip", "-p", "surus", "--output"];
    output(
        Command::new(tool)
            .args(args)
            .arg(&deb)
            .env("CARGO", cargo())
            .current_dir(&root),
    )?;
    report.say(format!("built {}", newest(&deb)?.display()));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io(|| format!("write {}", path.display())))
}

fn cargo_deb(target: &Path, report: Report) -> Result<PathBuf> {
    let tools = target.join("tools");
    let tool = tools.join("bin/cargo-deb");
    if !tool.is_file() {
        report.say("installing cargo-deb below the target directory");
        let version = format!("cargo-deb@{CARGO_DEB}");
        output(
            Command::new(cargo())
                .args(["install", &version, "--locked", "--quiet", "--root"])
                .arg(&tools),
        )?;
    }
    Ok(tool)
}

fn newest(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).map_err(Error::io(|| {
        format!("read {}: run `cargo ci package` first", dir.display())
    }))?;
    let debs = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"));
    let dated = debs.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)));
    let newest = dated.max().map(|(_, path)| path);
    newest.ok_or_else(|| {
        Error::Unable(format!(
            "no package in {}: run `cargo ci package` first",
            dir.display()
        ))
    })
}

/// A container that is removed when it is dropped.
struct Container {
    name: String,
}

impl Container {
    fn run(&self, report: Report, script: &str) -> Result<String> {
        report.say(format!("$ {}", script.lines().next().unwrap_or_default()));
        output(Command::new("docker").args(["exec", &self.name, "bash", "-ec", script]))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rm", "--force", &self.name])
            .output();
    }
}

/// Installs the package in containers and sees a primary come up.
///
/// # Errors
/// When a step of the README fails, the node does not become primary, or purging touches data.
pub(crate) fn try_install(options: &TryInstall, report: Report) -> Result<()> {
    let root = root()?;
    let deb = match &options.deb {
        Some(deb) => deb.clone(),
        None => newest(&target(&root).join("debian"))?,
    };
    for release in &options.releases {
        report.title(format!("{release}: install {}", deb.display()));
        try_release(&root, release, &deb, report)?;
        report.say(format!("{release}: installed, primary, purged; data untouched"));
    }
    Ok(())
}

fn try_release(root: &Path, release: &str, deb: &Path, report: Report) -> Result<()> {
    let image = images::base(release, report)?;
    let container = Container {
        name: format!("surus-ci-{release}-{}", std::process::id()),
    };
    // `--init` reaps what nobody waits for, as systemd does on a host.
    let flags = [
        "run",
        "--detach",
        "--init",
        "--network=host",
        "--name",
        &container.name,
        &image,
        "sleep",
        "infinity",
    ];
    output(Command::new("docker").args(flags))?;
    output(
        Command::new("docker")
            .arg("cp")
            .arg(deb)
            .arg(format!("{}:/root/surus.deb", container.name)),
    )?;
    let run = |script: &str| container.run(report, script);

    // What the README presupposes: an etcd. Addresses that this machine's own services do not use, for the network is the host's.
    run("printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")?;
    run(
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y etcd-server curl >/dev/null",
    )?;
    run(
        "mkdir -p /var/lib/try && (etcd --data-dir /var/lib/try/etcd --listen-client-urls http://127.0.9.21:2379 \
         --advertise-client-urls http://127.0.9.21:2379 --listen-peer-urls http://127.0.9.21:2380 >/var/log/etcd.log 2>&1 &)",
    )?;

    // Step 1 of the README.
    run(
        "mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf",
    )?;
    run("DEBIAN_FRONTEND=noninteractive apt-get install -qq -y postgresql /root/surus.deb >/dev/null")?;
    run(
        "surus --version && test -e /lib/systemd/system/surus.service -o -e /usr/lib/systemd/system/surus.service \
         && ls /usr/share/bash-completion/completions/surus /usr/share/doc/surus/examples/surus.yml \
         /usr/share/doc/surus/examples/router.yml /usr/share/doc/surus/examples/haproxy.cfg >/dev/null",
    )?;
    // Step 2.
    run(
        "install -m 0640 -o root -g postgres /usr/share/doc/surus/examples/surus.yml /etc/surus/surus.yml && \
         bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1) && \
         sed -i -e 's/10\\.0\\.0\\.1:/127.0.9.11:/' -e 's/10\\.0\\.0\\.2[0-9]:/127.0.9.21:/' -e \"s,bin_dir:.*,bin_dir: $bin,\" /etc/surus/surus.yml",
    )?;
    run("runuser -u postgres -- surus validate /etc/surus/surus.yml")?;
    // Step 3, as the unit does it.
    let unit = fs::read_to_string(root.join(UNIT)).map_err(Error::io(|| format!("read {UNIT}")))?;
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap_or_default();
    run(&format!(
        "cd / && setpriv --reuid=postgres --regid=postgres --init-groups {start} >/var/log/surus.log 2>&1 & echo $! >/run/surus.pid"
    ))?;
    let wait = "for i in $(seq 100); do curl -sf -o /dev/null http://127.0.9.11:8008/primary && exit 0; sleep 0.3; done; tail -n 40 /var/log/surus.log; exit 1";
    run(wait)?;
    run("surus list -c /etc/surus/surus.yml | grep -E 'Leader +\\| running'")?;
    let query = "PGPASSWORD=$(awk '/superuser:/ {found = 1} found && /password:/ {print $2; exit}' /etc/surus/surus.yml) \
         psql -h 127.0.9.11 -U postgres -Atc 'create table t as select 42 as x; select x from t' postgres";
    let answer = run(query)?;
    if !answer.contains("42") {
        return Err(Error::Unmet(format!(
            "{release}: the primary answered {answer:?}"
        )));
    }
    // Stopping, and purging the package, which must leave the data alone.
    run(
        "pid=$(cat /run/surus.pid) && kill -TERM $pid && for i in $(seq 100); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.1; done; exit 1",
    )?;
    std::thread::sleep(Duration::from_secs(1));
    run(
        "DEBIAN_FRONTEND=noninteractive apt-get purge -qq -y surus >/dev/null; ! command -v surus && test -s /var/lib/postgresql/surus/PG_VERSION",
    )?;
    Ok(())
}
