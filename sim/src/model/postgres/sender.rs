//! Walsenders: each serves one standby, from the primary or from a standby that cascades.

use super::message::{Link, Message, Refused};
use super::server::{Server, Stage};
use super::settings::Settings;
use super::slots::SlotKind;
use super::sync::SyncNames;
use crate::clock::Time;

/// What a walsender is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SenderState {
    /// Connected; nothing is streamed yet, or no longer on this timeline.
    Startup,
    /// On its way to the end.
    Catchup,
    /// At the end, and following it.
    Streaming,
}

/// A walsender.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) link: Link,
    pub(super) application_name: String,
    pub(super) slot: Option<String>,
    pub(super) state: SenderState,
    pub(super) timeline: u32,
    pub(super) sent: u64,
    /// Written, flushed, applied, as the standby last said; zero before it said anything.
    pub(super) reported: [u64; 3],
    /// Its own copy of `synchronous_standby_names`, and the priority that it gives.
    pub(super) names: SyncNames,
    pub(super) priority: usize,
    pub(super) names_due: Option<Time>,
    pub(super) heard: Time,
    pub(super) pinged: bool,
}

impl Sender {
    pub(super) fn streams(&self) -> bool {
        self.state != SenderState::Startup
    }

    pub(super) fn caught_up(&self) -> bool {
        self.state == SenderState::Streaming
    }

    pub(super) fn take_names(&mut self, names: SyncNames, cascading: bool) {
        self.priority = if cascading {
            0
        } else {
            names.priority(&self.application_name)
        };
        self.names = names;
    }

    pub(super) fn due(&self, settings: &Settings) -> Option<Time> {
        let patience = settings.wal_sender_timeout;
        let patience = if self.pinged { patience } else { patience / 2 };
        let silence = (patience != 0).then(|| self.heard + patience);
        match (silence, self.names_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl Server {
    /// The timeline that walsenders of this server serve as the present one.
    pub(super) fn served_timeline(&self) -> u32 {
        let Some(cluster) = self.cluster() else { return 0 };
        match self.process.as_ref().and_then(|process| process.standby.as_ref()) {
            Some(standby) => cluster.log.timeline_at(standby.replayed),
            None => cluster.log.timeline(),
        }
    }

    /// Up to where the present timeline can be sent: what is flushed here, of that timeline.
    pub(super) fn sendable(&self) -> u64 {
        let Some(cluster) = self.cluster() else { return 0 };
        let end = cluster.log.end_of(self.served_timeline());
        cluster.log.flushed.min(end.unwrap_or(u64::MAX))
    }

    pub(super) fn sender_receive(&mut self, now: Time, link: Link, message: Message) {
        match message {
            Message::Hello {
                application_name,
                timeline,
            } => self.hello(now, link, application_name, timeline),
            Message::Start { slot, timeline, from } => {
                if let Err(why) = self.start_sending(now, link, slot, timeline, from) {
                    self.drop_sender(link);
                    self.send(link.standby, link, Message::Refused(why));
                }
            }
            Message::Feedback {
                written,
                flushed,
                applied,
                ping,
            } => self.feedback(now, link, [written, flushed, applied], ping),
            Message::Close => {
                self.drop_sender(link);
                self.stop_tick(now);
            }
            _ => {}
        }
    }

    fn hello(&mut self, now: Time, link: Link, application_name: String, from: u32) {
        let timeline = self.served_timeline();
        let refused = match self.lets_in() {
            Err(super::server::Refusal::NotRunning) => Some(Refused::NoServer),
            Err(_) => Some(Refused::NotNow),
            Ok(()) => None,
        };
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let full = process.settings.max_wal_senders <= process.senders.len();
        let known = process.senders.iter_mut().find(|sender| sender.link == link);
        let refused = match (refused, &known) {
            (None, None) if full => Some(Refused::TooMany),
            // A walsender that is there serves on through the stop.
            (Some(_), Some(_)) => None,
            (refused, _) => refused,
        };
        if let Some(why) = refused {
            self.send(link.standby, link, Message::Refused(why));
            return;
        }
        let system_id = cluster.control.system_id;
        let histories = cluster.histories.files(from, timeline);
        if let Some(sender) = known {
            sender.heard = now;
        } else {
            let names = process.sync.clone();
            let mut sender = Sender {
                link,
                application_name,
                slot: None,
                state: SenderState::Startup,
                timeline,
                sent: 0,
                reported: [0; 3],
                names: SyncNames::None,
                priority: 0,
                names_due: None,
                heard: now,
                pinged: false,
            };
            let pending = SyncNames::parse(&process.settings.synchronous_standby_names).unwrap_or(names);
            sender.take_names(pending, process.stage != Stage::Primary);
            process.senders.push(sender);
        }
        let identity = Message::Identity {
            system_id,
            timeline,
            histories,
        };
        self.send(link.standby, link, identity);
    }

    fn start_sending(
        &mut self,
        now: Time,
        link: Link,
        slot: Option<String>,
        timeline: u32,
        from: u64,
    ) -> Result<(), Refused> {
        let current = self.served_timeline();
        let end = self.sendable();
        let Some((cluster, process)) = self.parts() else {
            return Err(Refused::NoServer);
        };
        if let Some(name) = &slot {
            let slot = cluster.slots.get_mut(name).ok_or(Refused::NoSlot)?;
            if slot.lost || slot.kind != SlotKind::Physical {
                return Err(Refused::SlotUnusable);
            }
            if slot.active.is_some_and(|user| user != link) {
                return Err(Refused::SlotActive);
            }
            slot.active = Some(link);
        }
        let stop = cluster.histories.switch(timeline, current);
        let stop = stop.ok_or(Refused::NotInHistory)?;
        if stop < from || (timeline == current && end < from) {
            return Err(Refused::NotInHistory);
        }
        if from < cluster.log.oldest {
            return Err(Refused::Removed);
        }
        if let Some(sender) = process.senders.iter_mut().find(|sender| sender.link == link) {
            sender.slot = slot;
            sender.timeline = timeline;
            sender.sent = from;
            sender.heard = now;
            sender.state = SenderState::Catchup;
        }
        self.send(link.standby, link, Message::Started);
        self.push(now);
        Ok(())
    }

    /// Sends what there is to send.
    pub(super) fn push(&mut self, _: Time) {
        let count = self.process.as_ref().map_or(0, |process| process.senders.len());
        if count == 0 {
            return;
        }
        let current = self.served_timeline();
        let end = self.sendable();
        let mut removed = Vec::new();
        for index in 0..count {
            loop {
                let Some((cluster, process)) = self.parts() else {
                    return;
                };
                let sender = &mut process.senders[index];
                if !sender.streams() {
                    break;
                }
                let past = sender.timeline != current;
                let limit = if past {
                    cluster.histories.switch(sender.timeline, current).unwrap_or(0)
                } else {
                    end
                };
                let (link, from) = (sender.link, sender.sent);
                if limit <= from {
                    if past {
                        sender.state = SenderState::Startup;
                        let path = cluster.histories.path(sender.timeline, current);
                        let timeline = path.first().map_or(current, |(next, _)| *next);
                        let histories = cluster.histories.files(sender.timeline, timeline);
                        self.release_slot(link);
                        let end = Message::EndOfTimeline { timeline, histories };
                        self.send(link.standby, link, end);
                    }
                    break;
                }
                if from < cluster.log.oldest {
                    removed.push(link);
                    break;
                }
                let piece = cluster.log.piece(from, limit);
                sender.sent = piece.end;
                self.send(link.standby, link, Message::Wal(piece));
            }
        }
        for link in removed {
            self.drop_sender(link);
            self.send(link.standby, link, Message::Refused(Refused::Removed));
        }
    }

    fn feedback(&mut self, now: Time, link: Link, reported: [u64; 3], ping: bool) {
        let end = self.sendable();
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(index) = process.senders.iter().position(|sender| sender.link == link) else {
            // Nobody serves this connection any more.
            self.send(link.standby, link, Message::Close);
            return;
        };
        let sender = &mut process.senders[index];
        sender.heard = now;
        sender.pinged = false;
        if sender.streams() {
            sender.reported = reported;
            if sender.sent == end {
                sender.state = SenderState::Streaming;
            }
            let slot = sender.slot.as_ref().and_then(|name| cluster.slots.get_mut(name));
            if let Some(slot) = slot.filter(|slot| slot.active == Some(link)) {
                slot.restart = Some(reported[1]);
            }
        }
        if ping {
            self.send(link.standby, link, Message::Keepalive { ping: false });
        }
        if self
            .process
            .as_ref()
            .is_some_and(|process| process.standby.is_none())
        {
            self.release_waiters(index);
        }
        self.stop_senders();
        self.stop_tick(now);
    }

    pub(super) fn drop_sender(&mut self, link: Link) {
        self.release_slot(link);
        if let Some(process) = &mut self.process {
            process.senders.retain(|sender| sender.link != link);
        }
    }

    pub(super) fn release_slot(&mut self, link: Link) {
        if let Some(cluster) = self.cluster_mut() {
            for slot in cluster.slots.values_mut() {
                if slot.active == Some(link) {
                    slot.active = None;
                }
            }
        }
    }

    pub(super) fn sender_tick(&mut self, now: Time) {
        let Some(process) = &mut self.process else { return };
        let patience = process.settings.wal_sender_timeout;
        if patience == 0 {
            return;
        }
        let (mut silent, mut asked) = (Vec::new(), Vec::new());
        for sender in &mut process.senders {
            if sender.heard + patience <= now {
                silent.push(sender.link);
            } else if !sender.pinged && sender.heard + patience / 2 <= now {
                sender.pinged = true;
                asked.push(sender.link);
            }
        }
        for link in asked {
            self.send(link.standby, link, Message::Keepalive { ping: true });
        }
        for link in silent {
            self.drop_sender(link);
            self.send(link.standby, link, Message::Close);
            self.stop_tick(now);
        }
    }
}
