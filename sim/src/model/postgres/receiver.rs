//! The walreceiver: it finds the upstream, fetches the history files it lacks, and takes in what is streamed.

use super::message::{Link, Message};
use super::server::{Happening, Server};
use super::standby::{Receiver, ReceiverState};
use super::wal::segment_start;
use crate::clock::Time;

impl Server {
    /// Starts a walreceiver, if there is an upstream and nothing speaks against it.
    pub(super) fn seek_upstream(&mut self, now: Time) {
        let Some((timeline, end)) = self.wanted() else {
            return;
        };
        let links = &mut self.links;
        let me = self.me;
        let Some(process) = &mut self.process else { return };
        let (Some(standby), None) = (&mut process.standby, process.stopping) else {
            return;
        };
        let Some(upstream) = &process.settings.primary_conninfo else {
            standby.retry = None;
            return;
        };
        if let Some((end, _)) = standby.replaying {
            // Whoever asks for more has replayed what it has, and knows by then which timelines it can still follow.
            standby.retry = Some(end);
            return;
        }
        if standby.promotion.is_some()
            || standby
                .receiver
                .as_ref()
                .is_some_and(|r| r.state != ReceiverState::Waiting)
        {
            return;
        }
        if standby.received.is_none() || standby.received_timeline != timeline {
            standby.received = Some(segment_start(end));
            standby.received_timeline = timeline;
        }
        standby.retry = None;
        let link = standby.link().unwrap_or_else(|| {
            *links += 1;
            Link {
                standby: me,
                upstream: upstream.to,
                number: *links,
            }
        });
        let hello = Message::Hello {
            application_name: upstream.application_name.clone(),
            timeline,
        };
        standby.receiver = Some(Receiver {
            link,
            state: ReceiverState::Connecting,
            timeline,
            start: segment_start(end),
            heard: now,
            pinged: false,
            next_report: now + process.settings.wal_receiver_status_interval,
        });
        self.send(link.upstream, link, hello);
    }

    /// The walreceiver ends, or found nobody: another attempt comes when the last one is long enough ago.
    pub(super) fn lost_upstream(&mut self, now: Time, why: &'static str) {
        self.close_receiver(why);
        self.retry_later(now);
    }

    pub(super) fn retry_later(&mut self, now: Time) {
        let Some(process) = &mut self.process else { return };
        let interval = process.settings.wal_retrieve_retry_interval;
        let Some(standby) = &mut process.standby else {
            return;
        };
        if standby.promotion.is_some() {
            return;
        }
        let due = standby.attempted.map_or(now, |last| (last + interval).max(now));
        standby.attempted = Some(due);
        standby.retry = Some(due);
    }

    pub(super) fn close_receiver(&mut self, why: &'static str) {
        let Some(process) = &mut self.process else { return };
        let Some(standby) = &mut process.standby else {
            return;
        };
        if let Some(receiver) = standby.receiver.take() {
            self.send(receiver.link.upstream, receiver.link, Message::Close);
            self.happened(Happening::Disconnected(why));
        }
    }

    fn receiver(&mut self, link: Link) -> Option<&mut Receiver> {
        let standby = self.process.as_mut()?.standby.as_mut()?;
        standby.receiver.as_mut().filter(|receiver| receiver.link == link)
    }

    pub(super) fn standby_receive(&mut self, now: Time, link: Link, message: Message) {
        let Some(receiver) = self.receiver(link) else {
            if !matches!(message, Message::Close | Message::Refused(_)) {
                // Nobody is there any more to whom this was sent.
                self.send(link.upstream, link, Message::Close);
            }
            return;
        };
        receiver.heard = now;
        receiver.pinged = false;
        match message {
            Message::Identity {
                system_id,
                timeline,
                histories,
            } => {
                let own = self.cluster().map(|cluster| cluster.control.system_id);
                if own != Some(system_id) {
                    self.lost_upstream(now, "the upstream is of another cluster");
                } else if let Err(why) = self.start_streaming(link, timeline, histories) {
                    self.lost_upstream(now, why);
                }
            }
            Message::Wal(piece) => {
                let Some((cluster, process)) = self.parts() else {
                    return;
                };
                let Some(standby) = &mut process.standby else {
                    return;
                };
                if let Err(_parted) = cluster
                    .log
                    .take(&piece, standby.replayed.max(cluster.control.min_recovery))
                {
                    // PostgreSQL sees a record whose back-link does not fit.
                    self.lost_upstream(now, "the upstream's log does not continue this one");
                    return;
                }
                let full = self.disk.full || self.disk.broken || self.disk.gone;
                if full && segment_start(piece.from) != segment_start(piece.end) {
                    self.crash(now, "could not write received WAL");
                    return;
                }
                if piece.end <= self.cluster().map_or(0, |cluster| cluster.log.flushed) {
                    self.received_up_to(piece.end);
                    self.report(now, false);
                } else {
                    self.flush(now);
                }
            }
            Message::Started => {
                self.happened(Happening::Streaming(link.upstream));
                self.report(now, false);
            }
            Message::Keepalive { ping } => {
                if ping {
                    self.report(now, false);
                }
            }
            Message::EndOfTimeline { timeline, histories } => {
                let Some(receiver) = self.receiver(link) else {
                    return;
                };
                receiver.state = ReceiverState::Waiting;
                let wanted = receiver.timeline;
                if let Err(why) = self.fetch_histories(wanted, timeline, &histories) {
                    self.lost_upstream(now, why);
                    return;
                }
                self.happened(Happening::Disconnected(
                    "the upstream has no more of this timeline",
                ));
                self.advance(now);
            }
            Message::Refused(why) => self.lost_upstream(now, why.text()),
            Message::Close => self.lost_upstream(now, "the upstream closed the connection"),
            Message::Hello { .. } | Message::Start { .. } | Message::Feedback { .. } => {}
        }
    }

    fn start_streaming(
        &mut self,
        link: Link,
        theirs: u32,
        files: Vec<(u32, Vec<super::timeline::Fork>)>,
    ) -> Result<(), &'static str> {
        let wanted = self.receiver(link).map_or(0, |receiver| receiver.timeline);
        if theirs < wanted {
            return Err("the highest timeline of the upstream is behind ours");
        }
        self.fetch_histories(wanted, theirs, &files)?;
        let cluster = self.cluster().ok_or("no cluster")?;
        let from = segment_start(cluster.valid_end());
        if let Some(receiver) = self.receiver(link) {
            receiver.state = ReceiverState::Streaming;
        }
        let slot = self
            .process
            .as_ref()
            .and_then(|process| process.settings.primary_slot_name.clone());
        let start = Message::Start {
            slot,
            timeline: wanted,
            from,
        };
        self.send(link.upstream, link, start);
        Ok(())
    }

    /// The history files up to `theirs` that this standby lacks.
    fn fetch_histories(
        &mut self,
        wanted: u32,
        theirs: u32,
        files: &[(u32, Vec<super::timeline::Fork>)],
    ) -> Result<(), &'static str> {
        let cluster = self.cluster_mut().ok_or("no cluster")?;
        for timeline in wanted.max(2)..=theirs {
            if cluster.histories.has(timeline) {
                continue;
            }
            let file = files.iter().find(|(number, _)| *number == timeline);
            let (_, forks) = file.ok_or("could not receive a timeline history file")?;
            cluster.histories.write(timeline, forks.clone());
        }
        Ok(())
    }

    fn received_up_to(&mut self, end: u64) {
        let Some(process) = &mut self.process else { return };
        let Some(standby) = &mut process.standby else {
            return;
        };
        standby.received = standby.received.max(Some(end));
    }

    /// What was received is flushed.
    pub(super) fn received(&mut self, now: Time) {
        let end = self.cluster().map_or(0, |cluster| cluster.log.flushed);
        self.received_up_to(end);
        let before = self.replay_position();
        self.advance(now);
        if self.replay_position() == before {
            self.report(now, false);
        }
    }

    /// Tells the upstream how far this standby is.
    pub(super) fn report(&mut self, now: Time, ping: bool) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(standby) = &mut process.standby else {
            return;
        };
        let Some(receiver) = &mut standby.receiver else {
            return;
        };
        if receiver.state != ReceiverState::Streaming {
            return;
        }
        receiver.next_report = now + process.settings.wal_receiver_status_interval;
        let link = receiver.link;
        let report = Message::Feedback {
            written: cluster.log.written,
            flushed: cluster.log.flushed,
            applied: standby.replayed,
            ping,
        };
        self.send(link.upstream, link, report);
    }
}
