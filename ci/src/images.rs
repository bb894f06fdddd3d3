//! Docker images of hosts, made of Debian's packages alone: no registry is asked.
//!
//! ```text
//!   debootstrap ──► surus-ci-RELEASE ──► packages ──► surus-host-POSTGRES:RECIPE
//! ```
//!
//! One image serves as any host of a cluster: PostgreSQL, etcd and HAProxy are in it, and what faults need. Its tag is a hash of how it
//! is made, so it is made again when, and only when, that changes.

use std::process::Command;

use crate::error::{Error, Result};
use crate::report::Report;
use crate::tool::{output, root, target};

/// The majors of PostgreSQL for which there is an image, each with the release of Debian that ships it.
pub const POSTGRES: &[(u32, &str)] = &[(15, "bookworm"), (17, "trixie")];
/// What a host needs beside PostgreSQL: the other services, and the tools of faults.
const PACKAGES: &str =
    "ca-certificates etcd-server etcd-client haproxy iproute2 nftables procps strace util-linux";
/// Before the packages are installed: no service starts, and no cluster of Debian's own is created.
const BEFORE: &str = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
                      && mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf";
/// And after it.
const AFTER: &str = "apt-get clean && rm -rf /var/lib/apt/lists/*";

/// The name of the image with this major of PostgreSQL, whether it is there or not.
///
/// # Errors
/// There is no such image; the majors that there are are named.
pub fn name(postgres: u32) -> Result<String> {
    let (_, recipe) = recipe(postgres)?;
    Ok(format!("surus-host-{postgres}:{:016x}", fingerprint(&recipe)))
}

/// Whether Docker answers and has the image; else what is missing, with the remedy.
///
/// # Errors
/// As said.
pub fn ready(postgres: u32) -> Result<String> {
    let name = name(postgres)?;
    docker()?;
    if has(&name) {
        return Ok(name);
    }
    Err(Error::Unable(format!(
        "the image {name} is not there: run `cargo ci images`"
    )))
}

/// Makes the image with this major of PostgreSQL unless it is there, and removes those of older recipes. Returns its name.
///
/// # Errors
/// A program that takes part fails; its last words are in the error.
pub fn host(postgres: u32, report: Report) -> Result<String> {
    let name = name(postgres)?;
    docker()?;
    if has(&name) {
        report.say(format!("{name} is there"));
        return Ok(name);
    }
    let (release, script) = recipe(postgres)?;
    let base = base(release, report)?;
    report.say(format!(
        "{name}: installing PostgreSQL {postgres}, etcd and HAProxy"
    ));
    let container = format!("surus-images-{postgres}-{}", std::process::id());
    let made = output(Command::new("docker").args([
        "run",
        "--network=host",
        "--name",
        &container,
        &base,
        "sh",
        "-ec",
        &script,
    ]))
    .and_then(|_| {
        output(Command::new("docker").args([
            "commit",
            "--change",
            "CMD [\"sleep\", \"infinity\"]",
            &container,
            &name,
        ]))
    });
    let _ = Command::new("docker")
        .args(["rm", "--force", &container])
        .output();
    made?;
    forget(&name);
    report.say(format!("{name}: made"));
    Ok(name)
}

/// Makes the image of a minimal Debian `release` unless it is there, and returns its name.
///
/// # Errors
/// As [`host`].
pub fn base(release: &str, report: Report) -> Result<String> {
    let image = format!("surus-ci-{release}");
    if has(&image) {
        return Ok(image);
    }
    report.say(format!("building a minimal {release} with debootstrap"));
    let target = target(&root()?);
    let made = std::fs::create_dir_all(&target).and_then(|()| tempfile::tempdir_in(&target));
    let dir = made.map_err(Error::io(|| "create a directory for debootstrap"))?;
    output(
        Command::new("debootstrap")
            .args(["--variant=minbase", release])
            .arg(dir.path()),
    )?;
    let pack = format!("tar -C '{}' -c . | docker import - {image}", dir.path().display());
    output(Command::new("sh").args(["-c", &pack]))?;
    Ok(image)
}

/// The release, and what is done to it.
fn recipe(postgres: u32) -> Result<(&'static str, String)> {
    let known = POSTGRES.iter().find(|(major, _)| *major == postgres);
    let Some((_, release)) = known else {
        let majors: Vec<String> = POSTGRES.iter().map(|(major, _)| major.to_string()).collect();
        return Err(Error::Unable(format!(
            "there is no image with PostgreSQL {postgres}; there are {}",
            majors.join(" and ")
        )));
    };
    let install = "apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold";
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive && {BEFORE} && apt-get update -qq && {install} postgresql-{postgres} {PACKAGES} >/dev/null \
         && {AFTER} # {release}"
    );
    Ok((release, script))
}

fn docker() -> Result<()> {
    let asked = output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]));
    match asked {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Unable(format!(
            "Docker does not answer ({}): run `./ci/setup --containers`, start its service, and see that this user may use it",
            crate::error::chain(&error)
        ))),
    }
}

fn has(image: &str) -> bool {
    output(Command::new("docker").args(["image", "inspect", image])).is_ok()
}

/// Removes images of the same repository with another tag; those in use stay.
fn forget(name: &str) {
    let Some((repository, _)) = name.split_once(':') else {
        return;
    };
    let list = output(Command::new("docker").args([
        "image",
        "ls",
        "--format",
        "{{.Repository}}:{{.Tag}}",
        repository,
    ]));
    for old in list
        .unwrap_or_default()
        .lines()
        .filter(|old| *old != name && !old.ends_with(":<none>"))
    {
        let _ = Command::new("docker").args(["image", "rm", old]).output();
    }
}

/// FNV-1a, 64 bits: the same on every machine and with every compiler.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_changes_with_the_recipe_only() {
        assert_eq!(name(15).unwrap(), name(15).unwrap());
        assert_ne!(
            name(15).unwrap().split_once(':').unwrap().1,
            name(17).unwrap().split_once(':').unwrap().1
        );
        // The published test vector of the hash.
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
        assert!(name(9).unwrap_err().to_string().contains("15 and 17"));
    }
}
