//! Write-ahead log: positions, record boundaries, segments, and whose hand wrote what.
//!
//! A [`Log`] is one line of descent. Its [`Run`]s say who wrote it from where on: each time a server begins to write (after a start,
//! after a promotion) a run begins, named by its [`Origin`]. Two logs hold the same bytes up to a position exactly if their runs agree
//! up to there, so a timeline number that two servers used for different histories is told apart, which PostgreSQL itself cannot do.
//!
//! Three positions end it: what was inserted (lost when the server dies), written to the operating system (lost when the host dies)
//! and flushed. A record that is there only in part ends the valid log before it.

use surus_core::types::Lsn;

/// Bytes of a WAL segment, as initdb makes them.
pub const SEGMENT: u64 = 16 << 20;

/// The smallest record that this model writes: about a commit record of PostgreSQL with its alignment.
pub const RECORD: u64 = 104;

/// Where the segment that holds `position` begins.
#[must_use]
pub fn segment_start(position: u64) -> u64 {
    position - position % SEGMENT
}

/// The name of a transaction, given by whoever commits it. Unique in a world.
pub type Txn = u64;

/// One server's writing without interruption: nobody else ever writes a run of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Origin {
    /// The server.
    pub server: u32,
    /// Counts its beginnings to write.
    pub count: u32,
}

/// A stretch of log by one hand on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The timeline.
    pub timeline: u32,
    /// Who wrote it.
    pub origin: Origin,
    /// Its first byte.
    pub start: u64,
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Commits a transaction.
    Commit(Txn),
    /// A checkpoint.
    Checkpoint {
        /// Where its record begins.
        start: u64,
        /// Where recovery from it begins.
        redo: u64,
    },
    /// Anything else.
    Other,
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The first byte after it.
    pub end: u64,
    /// What it does.
    pub kind: Kind,
    /// When it was written; a delayed replica waits from then.
    pub at: u64,
}

/// A position in one history, comparable over all logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The run that the byte before the position belongs to.
    pub run: Run,
    /// The position.
    pub end: u64,
}

impl Point {
    /// The position as PostgreSQL writes it.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        Lsn(self.end)
    }
}

/// How two logs lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same bytes.
    Equal,
    /// The first has all of the second, and more.
    Ahead,
    /// The second has all of the first, and more.
    Behind,
    /// Each has something that the other lacks; they are one up to here.
    Diverged(u64),
}

/// The log of one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    runs: Vec<Run>,
    records: Vec<Record>,
    /// The first byte that is still in pg_wal.
    pub oldest: u64,
    /// The end of what is in the server's buffers.
    pub inserted: u64,
    /// The end of what the operating system has.
    pub written: u64,
    /// The end of what survives a loss of power.
    pub flushed: u64,
}

impl Log {
    /// The log that initdb leaves.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        let end = SEGMENT + 5 * (SEGMENT / 16);
        let run = Run {
            timeline: 1,
            origin,
            start: 0,
        };
        let record = Record {
            end,
            kind: Kind::Other,
            at: 0,
        };
        Self {
            runs: vec![run],
            records: vec![record],
            oldest: SEGMENT,
            inserted: end,
            written: end,
            flushed: end,
        }
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The last timeline.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.runs.last().map_or(1, |run| run.timeline)
    }

    /// The run that the byte before `position` belongs to.
    #[must_use]
    pub fn run_before(&self, position: u64) -> Run {
        let after = self.runs.partition_point(|run| run.start < position);
        self.runs[after.saturating_sub(1)]
    }

    /// Where the run that holds the byte at `position` ends, if another follows it.
    fn run_end(&self, position: u64) -> Option<u64> {
        let after = self.runs.partition_point(|run| run.start <= position);
        self.runs.get(after).map(|run| run.start)
    }

    /// The timeline that the byte before `position` belongs to.
    #[must_use]
    pub fn timeline_at(&self, position: u64) -> u32 {
        self.run_before(position).timeline
    }

    /// Where a timeline ended, if it did.
    #[must_use]
    pub fn end_of(&self, timeline: u32) -> Option<u64> {
        self.runs
            .iter()
            .find(|run| timeline < run.timeline)
            .map(|run| run.start)
    }

    /// `position` as a point of this history.
    #[must_use]
    pub fn point(&self, position: u64) -> Point {
        Point {
            run: self.run_before(position),
            end: position,
        }
    }

    /// The history up to `end` includes the point.
    #[must_use]
    pub fn holds(&self, point: Point, end: u64) -> bool {
        point.end <= end && self.run_before(point.end) == point.run
    }

    /// Up to where two logs are one, whatever each has.
    #[must_use]
    pub fn common(&self, other: &Self) -> u64 {
        let same = self
            .runs
            .iter()
            .zip(&other.runs)
            .take_while(|(a, b)| a == b)
            .count();
        let end = |log: &Self| log.runs.get(same).map_or(log.inserted, |run| run.start);
        end(self).min(end(other))
    }

    /// How this log lies to another.
    #[must_use]
    pub fn relation(&self, other: &Self) -> Relation {
        let common = self.common(other);
        match (common == self.inserted, common == other.inserted) {
            (true, true) => Relation::Equal,
            (false, true) => Relation::Ahead,
            (true, false) => Relation::Behind,
            (false, false) => Relation::Diverged(common),
        }
    }

    /// The end of the last record that is complete before `limit`.
    #[must_use]
    pub fn valid_end(&self, limit: u64) -> u64 {
        let count = self.count_to(limit);
        count.checked_sub(1).map_or(0, |last| self.records[last].end)
    }

    /// How many bytes of records there are to replay from `from` to `to`: what a switch leaves empty of a segment is passed over.
    #[must_use]
    pub fn volume(&self, from: u64, to: u64) -> u64 {
        let (mut before, mut bytes) = (from, 0);
        for record in self.records(from, to) {
            let switch = record.kind == Kind::Other && record.end % SEGMENT == 0;
            bytes += if switch { RECORD } else { record.end - before };
            before = record.end;
        }
        bytes + to.saturating_sub(before)
    }

    /// How many records end at or before `limit`. Nearly always that is asked of the last few, so they are looked at first.
    fn count_to(&self, limit: u64) -> usize {
        let mut known = self.records.len();
        let mut step = 1;
        while let Some(earlier) = known.checked_sub(step) {
            if self.records[earlier].end <= limit {
                let within = &self.records[earlier..known];
                return earlier + within.partition_point(|record| record.end <= limit);
            }
            known = earlier;
            step *= 2;
        }
        self.records[..known].partition_point(|record| record.end <= limit)
    }

    /// The records that end in `from..=to`, `from` itself left out.
    #[must_use]
    pub fn records(&self, from: u64, to: u64) -> &[Record] {
        let first = self.count_to(from);
        let after = self.count_to(to);
        &self.records[first..after.max(first)]
    }

    /// Inserts a record of `bytes`; returns its end.
    pub fn append(&mut self, bytes: u64, kind: Kind, at: u64) -> u64 {
        let bytes = bytes.max(RECORD).next_multiple_of(8);
        self.inserted += bytes;
        self.records.push(Record {
            end: self.inserted,
            kind,
            at,
        });
        self.inserted
    }

    /// Inserts the record of a checkpoint from whose beginning recovery begins; returns where it begins.
    pub fn checkpoint(&mut self, at: u64) -> u64 {
        let start = self.inserted;
        self.append(RECORD, Kind::Checkpoint { start, redo: start }, at);
        start
    }

    /// The last checkpoint whose record ends at or before `limit`, while its WAL is there: (where it begins, its redo, its end).
    #[must_use]
    pub fn last_checkpoint(&self, limit: u64) -> Option<(u64, u64, u64)> {
        let count = self.count_to(limit);
        self.records[..count]
            .iter()
            .rev()
            .take_while(|record| self.oldest < record.end)
            .find_map(|record| match record.kind {
                Kind::Checkpoint { start, redo } if self.oldest <= redo => Some((start, redo, record.end)),
                _ => None,
            })
    }

    /// A server begins to write here: what there may be beyond the last complete record is overwritten.
    pub fn begin(&mut self, timeline: u32, origin: Origin) {
        let end = self.valid_end(self.inserted);
        self.truncate(end);
        self.push(Run {
            timeline,
            origin,
            start: end,
        });
    }

    /// Everything inserted is on disk.
    pub fn flush(&mut self) {
        self.written = self.inserted;
        self.flushed = self.inserted;
    }

    /// Drops everything from `end` on.
    pub fn truncate(&mut self, end: u64) {
        while self.records.last().is_some_and(|record| end < record.end) {
            self.records.pop();
        }
        while 1 < self.runs.len() && self.runs.last().is_some_and(|run| end <= run.start) {
            self.runs.pop();
        }
        self.inserted = self.inserted.min(end);
        self.written = self.written.min(end);
        self.flushed = self.flushed.min(end);
    }

    /// The server died: its buffers are gone.
    pub fn lose_buffers(&mut self) {
        self.truncate(self.written);
    }

    /// The host died: what was not flushed is gone.
    pub fn lose_unflushed(&mut self) {
        self.truncate(self.flushed);
    }

    /// Takes in a piece that was streamed. `replayed` has taken effect and cannot be taken back: a piece of another history below it
    /// is refused with the position at which the histories part, one above it takes the place of what was there.
    ///
    /// # Errors
    ///
    /// Where this log parts from the piece's history.
    pub fn take(&mut self, piece: &Piece, replayed: u64) -> Result<(), u64> {
        if self.inserted < piece.from {
            return Err(self.inserted);
        }
        let overlap = piece.end.min(self.inserted);
        let mut same = piece.from;
        while same < overlap && self.run_before(same + 1) == piece.run {
            same = self.run_end(same).unwrap_or(overlap).min(overlap);
        }
        if same < overlap {
            if same < replayed {
                return Err(same);
            }
            self.truncate(same);
        }
        if piece.end <= self.inserted {
            return Ok(());
        }
        if self.runs.last() != Some(&piece.run) {
            if self.inserted != piece.run.start {
                return Err(self.inserted);
            }
            self.push(piece.run);
        }
        let known = self.records.last().map_or(0, |record| record.end);
        let fresh = piece.records.iter().filter(|record| known < record.end);
        self.records.extend(fresh);
        self.inserted = piece.end;
        self.written = piece.end;
        Ok(())
    }

    /// Begins a run at the end; one that begins there and holds nothing goes.
    fn push(&mut self, run: Run) {
        while 1 < self.runs.len() && self.runs.last().is_some_and(|last| last.start == run.start) {
            self.runs.pop();
        }
        self.runs.push(run);
    }

    /// The next piece from `from` on, at most up to `limit` and to the end of a run and of a segment.
    #[must_use]
    pub fn piece(&self, from: u64, limit: u64) -> Piece {
        let end = limit
            .min(segment_start(from) + SEGMENT)
            .min(self.run_end(from).unwrap_or(limit));
        Piece {
            run: self.run_before(from + 1),
            from,
            end,
            records: self.records(from, end).to_vec(),
        }
    }
}

/// A stretch of log on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose it is.
    pub run: Run,
    /// Its first byte.
    pub from: u64,
    /// The byte after its last.
    pub end: u64,
    /// The records that end in it.
    pub records: Vec<Record>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(server: u32) -> Origin {
        Origin { server, count: 0 }
    }

    #[test]
    fn power_loss_takes_what_was_not_flushed_and_a_kill_what_was_not_written() {
        let mut log = Log::new(origin(1));
        let flushed = log.inserted;
        log.written = log.append(200, Kind::Other, 0);
        log.append(200, Kind::Other, 0);
        let mut killed = log.clone();
        killed.lose_buffers();
        assert_eq!(killed.inserted, log.written);
        log.lose_unflushed();
        assert_eq!(log.inserted, flushed);
    }

    #[test]
    fn a_torn_tail_ends_the_valid_log_before_it() {
        let mut log = Log::new(origin(1));
        let whole = log.append(1000, Kind::Other, 0);
        log.append(1000, Kind::Other, 0);
        log.written = whole + 300;
        log.lose_buffers();
        assert_eq!((log.inserted, log.valid_end(log.inserted)), (whole + 300, whole));
        log.begin(1, origin(2));
        assert_eq!(
            log.inserted, whole,
            "the next writer begins after the last complete record"
        );
    }

    #[test]
    fn one_timeline_number_with_two_histories_is_told_apart() {
        let first = Log::new(origin(1));
        let fork = first.inserted;
        let (mut a, mut b) = (first.clone(), first.clone());
        a.begin(2, origin(1));
        a.append(500, Kind::Other, 0);
        b.begin(2, origin(2));
        b.append(500, Kind::Other, 0);
        assert_eq!(a.timeline(), b.timeline());
        assert_eq!(a.relation(&b), Relation::Diverged(fork));
        assert_eq!(a.relation(&first), Relation::Ahead);
        assert!(a.holds(first.point(fork), a.inserted));
        assert!(!b.holds(a.point(a.inserted), b.inserted));
    }

    #[test]
    fn streamed_pieces_overwrite_what_was_not_replayed_and_nothing_else() {
        let mut old = Log::new(origin(1));
        let fork = old.inserted;
        let mut new = old.clone();
        old.append(300, Kind::Other, 0);
        old.flush();
        new.begin(2, origin(2));
        new.append(700, Kind::Other, 0);
        let piece = new.piece(fork, new.inserted);
        assert_eq!(
            old.clone().take(&piece, old.inserted),
            Err(fork),
            "replayed past the fork"
        );
        old.take(&piece, fork).unwrap();
        assert_eq!(old.relation(&new), Relation::Equal);
        assert_eq!(old.timeline_at(fork), 1);
        assert_eq!(old.timeline_at(fork + 1), 2);
    }

    #[test]
    fn a_piece_that_is_known_already_changes_nothing() {
        let mut source = Log::new(origin(1));
        source.append(300, Kind::Other, 0);
        let mut copy = source.clone();
        let piece = source.piece(segment_start(source.inserted), source.inserted);
        copy.take(&piece, copy.inserted).unwrap();
        assert_eq!(copy, source);
    }
}
