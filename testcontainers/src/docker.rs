//! Docker, as far as stories need it: a network and hosts of a run's own, and nothing left of runs that are over.
//!
//! Everything that is made carries a label with the process that made it. What carries the label of a process that is gone is removed by
//! the next run ([`Docker::sweep`]), so that a run that was killed leaves nothing for good.
//!
//! This speaks to the engine through bollard, the client that the testcontainers crate stands on, and not through that crate: it asks
//! for the newest API without negotiating (0.28 asks for 1.53, Debian's engine 20.10 knows 1.41), and knows neither fixed addresses
//! nor signals and pauses, which stories are made of.
#![expect(
    clippy::disallowed_types,
    reason = "the requests of the Docker library are made of them"
)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam, IpamConfig, Mount,
    MountTmpfsOptions, MountType, NetworkCreateRequest, NetworkingConfig, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptionsBuilder, StartContainerOptions,
};
use futures_util::{Stream, StreamExt as _};
use surus_ci::error::{Error, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// The label of all that is made; its value is [`owner`].
const LABEL: &str = "surus.stories";
/// The subnets that networks are made of, the third number counting up: 10.91.0.0/24 and so on.
const SUBNETS: std::ops::Range<u8> = 0..250;

/// A connection to the engine.
#[derive(Debug, Clone)]
pub struct Docker {
    api: bollard::Docker,
}

/// A network of a run's own.
#[derive(Debug, Clone)]
pub struct Network {
    name: String,
    third: u8,
}

impl Network {
    /// The address of the test process, which is the bridge's own.
    #[must_use]
    pub const fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The address with this last number.
    #[must_use]
    pub const fn at(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.third, last)
    }
}

/// What a host is made of.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Its container's name, and that of its volume.
    pub name: &'a str,
    /// The image.
    pub image: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// A directory of this machine, seen there as `/surus`.
    pub files: &'a Path,
    /// The agent of this machine, seen there as `/usr/bin/surus`.
    pub agent: &'a Path,
    /// Instead of the volume at `/data`, a filesystem in memory of so many bytes.
    pub disk: Option<i64>,
}

fn failed(doing: impl std::fmt::Display) -> impl FnOnce(bollard::errors::Error) -> Error {
    move |error| Error::Unable(format!("Docker could not {doing}: {error}"))
}

fn labels() -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), owner(std::process::id()).unwrap_or_default())])
}

/// A process by its number and the time of its start, so that a number that is used again is not taken for it.
fn owner(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let start = stat.rsplit(')').next()?.split_whitespace().nth(19)?;
    Some(format!("{pid}:{start}"))
}

/// Whether the process that made something is gone.
fn orphaned(labels: Option<&HashMap<String, String>>) -> bool {
    let Some(label) = labels.and_then(|labels| labels.get(LABEL)) else {
        return false;
    };
    let pid = label.split(':').next().and_then(|pid| pid.parse().ok());
    pid.and_then(owner).as_ref() != Some(label)
}

impl Docker {
    /// Connects to the engine of this machine, in the newest language that both know.
    ///
    /// # Errors
    /// It does not answer; the text says the remedy.
    pub async fn connect() -> Result<Self> {
        let remedy = |error| {
            Error::Unable(format!(
                "Docker does not answer: {error}; run `./ci/setup --containers`, start its service, and see that this user may use it"
            ))
        };
        let api = bollard::Docker::connect_with_defaults().map_err(remedy)?;
        let api = api.negotiate_version().await.map_err(remedy)?;
        Ok(Self { api })
    }

    /// Removes what processes that are gone have left, and says how much that was.
    ///
    /// # Errors
    /// The engine does not say what there is.
    pub async fn sweep(&self) -> Result<usize> {
        let filter = HashMap::from([("label", vec![LABEL])]);
        let listed = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let containers = self.api.list_containers(Some(listed)).await;
        let mut removed = 0;
        for container in containers.map_err(failed("list containers"))? {
            if orphaned(container.labels.as_ref())
                && let Some(id) = container.id
            {
                self.remove(&id).await;
                removed += 1;
            }
        }
        let listed = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let networks = self.api.list_networks(Some(listed)).await;
        for network in networks.map_err(failed("list networks"))? {
            if orphaned(network.labels.as_ref())
                && let Some(id) = network.id
            {
                // One that is still in use is removed by the run after this.
                removed += usize::from(self.api.remove_network(&id).await.is_ok());
            }
        }
        let listed = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let volumes = self.api.list_volumes(Some(listed)).await;
        let volumes = volumes
            .map_err(failed("list volumes"))?
            .volumes
            .unwrap_or_default();
        for volume in volumes.iter().filter(|volume| orphaned(Some(&volume.labels))) {
            self.remove_volume(&volume.name).await;
            removed += 1;
        }
        Ok(removed)
    }

    /// Makes a network of the first subnet that is free. It leads nowhere but to this machine.
    ///
    /// # Errors
    /// No subnet is free; the engine's last word is in the error.
    pub async fn network(&self, name: &str) -> Result<Network> {
        let mut last = String::new();
        for third in SUBNETS {
            let config = IpamConfig {
                subnet: Some(format!("10.91.{third}.0/24")),
                gateway: Some(format!("10.91.{third}.1")),
                ..IpamConfig::default()
            };
            let request = NetworkCreateRequest {
                name: name.to_owned(),
                driver: Some("bridge".to_owned()),
                internal: Some(true),
                ipam: Some(Ipam {
                    config: Some(vec![config]),
                    ..Ipam::default()
                }),
                labels: Some(labels()),
                ..NetworkCreateRequest::default()
            };
            match self.api.create_network(request).await {
                Ok(_) => {
                    return Ok(Network {
                        name: name.to_owned(),
                        third,
                    });
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(Error::Unable(format!("Docker makes no network: {last}")))
    }

    /// Makes a host and starts it: nothing runs there but a sleeper. Returns the container's id.
    ///
    /// # Errors
    /// The engine refuses it.
    pub async fn host(&self, network: &Network, plan: &Plan<'_>) -> Result<String> {
        let mount = |typ, source: String, target: &str, read_only| Mount {
            typ: Some(typ),
            source: Some(source),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            ..Mount::default()
        };
        let data = match plan.disk {
            Some(bytes) => Mount {
                typ: Some(MountType::TMPFS),
                target: Some("/data".to_owned()),
                tmpfs_options: Some(MountTmpfsOptions {
                    size_bytes: Some(bytes),
                    ..MountTmpfsOptions::default()
                }),
                ..Mount::default()
            },
            None => {
                self.volume(plan.name).await?;
                mount(MountType::VOLUME, plan.name.to_owned(), "/data", false)
            }
        };
        let mounts = vec![
            data,
            mount(MountType::BIND, absolute(plan.files)?, "/surus", false),
            mount(MountType::BIND, absolute(plan.agent)?, "/usr/bin/surus", true),
        ];
        let endpoint = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(plan.address.to_string()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        let body = ContainerCreateBody {
            image: Some(plan.image.to_owned()),
            cmd: Some(["sleep", "infinity"].map(str::to_owned).to_vec()),
            hostname: Some(plan.name.to_owned()),
            labels: Some(labels()),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                cap_add: Some(vec!["NET_ADMIN".to_owned()]),
                // It reaps what nobody waits for, as systemd does on a host.
                init: Some(true),
                network_mode: Some(network.name.clone()),
                ..HostConfig::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])),
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(plan.name).build();
        let made = self.api.create_container(Some(options), body).await;
        let id = made
            .map_err(failed(format!("make the container {}", plan.name)))?
            .id;
        self.start(&id).await?;
        Ok(id)
    }

    async fn volume(&self, name: &str) -> Result<()> {
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels()),
            ..VolumeCreateRequest::default()
        };
        let made = self.api.create_volume(volume).await;
        made.map(drop).map_err(failed(format!("make the volume {name}")))
    }

    /// Starts a container that has stopped: its host has power again.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn start(&self, id: &str) -> Result<()> {
        let started = self.api.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(failed("start a container"))
    }

    /// Ends a container and all that runs in it at once.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let killed = self.api.kill_container(id, Some(options)).await;
        killed.map_err(failed("kill a container"))
    }

    /// Freezes all of a container's processes, or thaws them.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn pause(&self, id: &str, paused: bool) -> Result<()> {
        let done = if paused {
            self.api.pause_container(id).await
        } else {
            self.api.unpause_container(id).await
        };
        done.map_err(failed("pause or unpause a container"))
    }

    /// Removes a container whatever its state. One that cannot be removed now is removed by [`Self::sweep`] later.
    pub async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let _ = self.api.remove_container(id, Some(options)).await;
    }

    /// Removes a volume.
    pub async fn remove_volume(&self, name: &str) {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        let _ = self.api.remove_volume(name, Some(options)).await;
    }

    /// Removes a network.
    pub async fn remove_network(&self, network: &Network) {
        let _ = self.api.remove_network(&network.name).await;
    }

    /// Opens a shell in a container, as root.
    ///
    /// # Errors
    /// The container does not run.
    pub async fn shell(&self, id: &str) -> Result<Shell> {
        let doing = "open a shell in a container";
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(false),
            cmd: Some(vec!["sh"]),
            ..CreateExecOptions::default()
        };
        let made = self.api.create_exec(id, options).await.map_err(failed(doing))?;
        let started = self.api.start_exec(&made.id, None::<StartExecOptions>).await;
        match started.map_err(failed(doing))? {
            StartExecResults::Attached { output, input } => Ok(Shell { input, output }),
            StartExecResults::Detached => Err(Error::Unable(format!("Docker did not {doing}: detached"))),
        }
    }
}

fn absolute(path: &Path) -> Result<String> {
    let path: PathBuf =
        std::path::absolute(path).map_err(Error::io(|| format!("find {}", path.display())))?;
    Ok(path.display().to_string())
}

/// A shell in a container that takes script after script: a command takes milliseconds, where a new process of the engine's takes a
/// tenth of a second.
pub struct Shell {
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send>>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shell")
    }
}

/// Begins the line that ends a script's output and holds its exit code.
const END: char = '\u{1}';

impl Shell {
    /// Runs a script in a subshell and returns its exit code and what it printed.
    ///
    /// # Errors
    /// It does not end within `limit`, or the shell is gone. Either way the shell is of no use any more.
    pub async fn run(&mut self, script: &str, limit: Duration) -> Result<(i32, String)> {
        let first = script.lines().next().unwrap_or_default().to_owned();
        let work = async {
            let text = format!("(\n{script}\n) 2>&1 </dev/null; printf '\\n\\001%d\\n' $?\n");
            let gone = |error| Error::Unable(format!("the shell of a container is gone: {error}"));
            self.input.write_all(text.as_bytes()).await.map_err(gone)?;
            self.input.flush().await.map_err(gone)?;
            let mut told = Vec::new();
            loop {
                match self.output.next().await {
                    Some(Ok(part)) => told.extend_from_slice(part.as_ref()),
                    Some(Err(error)) => return Err(failed("read from a shell")(error)),
                    None => return Err(Error::Unable("the shell of a container has ended".to_owned())),
                }
                if let Some((output, code)) = ended(&told) {
                    return Ok((code, output));
                }
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::Late {
                what: format!("`{first}` in a container"),
                limit,
                last: "silence".to_owned(),
            }),
        }
    }
}

fn ended(told: &[u8]) -> Option<(String, i32)> {
    let text = String::from_utf8_lossy(told);
    let (output, rest) = text.rsplit_once(END)?;
    let code = rest.strip_suffix('\n')?.trim().parse().ok()?;
    Some((output.trim_end_matches('\n').to_owned(), code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_script_is_found_when_it_is_whole() {
        assert_eq!(ended(b"one\ntwo\n"), None);
        assert_eq!(ended(b"one\n\n\x011"), None);
        assert_eq!(ended(b"one\n\n\x0112\n"), Some(("one".to_owned(), 12)));
    }

    #[test]
    fn what_a_living_process_made_is_no_orphan() {
        let mine = labels();
        assert!(!orphaned(Some(&mine)));
        assert!(orphaned(Some(&HashMap::from([(
            LABEL.to_owned(),
            "1:0".to_owned()
        )]))));
        assert!(!orphaned(None), "what is not ours is left alone");
    }
}
