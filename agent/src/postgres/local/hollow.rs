//! Segments of timelines that have nothing of their own yet.
//!
//! The WAL of a new timeline is streamed from the beginning of the segment in which it left the one before, into a file of zeros. A standby
//! that ends before the place where they part is reached cannot be started again: PostgreSQL reads the newest timeline's file first, comes
//! to its zeros, asks for what follows on the older timeline, and ends with "WAL location … belongs to timeline 1, but previous recovered
//! WAL file came from timeline 2" (as seen on 15). Without that file it goes on along the older one, and has the newer one sent again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::super::probe::parse_history;
use super::rewind::segment_of;
use super::signals::history_file;
use super::{Error, files};

/// What a segment may measure.
const SEGMENT: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// What a page of WAL may measure: PostgreSQL can be built with any power of two.
const PAGE: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 16;
/// Where the first page of a segment says that.
const PAGE_SIZE_AT: u64 = 36;

/// Removes the segments of timelines above `own` in which nothing of their own has arrived, where another timeline's file has all that is
/// in them. `names` is what lies in `pg_wal`; who goes leaves it.
pub(super) fn remove(data_dir: &Path, own: u32, names: &mut Vec<String>) -> Result<(), Error> {
    let wal = data_dir.join("pg_wal");
    // A partial one is never read for recovery.
    let later =
        |name: &String| name.len() == 24 && segment_of(name, 1).is_some_and(|(timeline, _)| own < timeline);
    let hollow: BTreeSet<String> = names
        .iter()
        .filter(|name| later(name) && is_hollow(data_dir, &wal, name))
        .cloned()
        .collect();
    for name in &hollow {
        files::remove(&wal.join(name))?;
        tracing::info!(
            segment = name,
            "removed a segment that has nothing of its timeline yet: PostgreSQL could not start with it"
        );
    }
    names.retain(|name| !hollow.contains(name));
    Ok(())
}

fn is_hollow(data_dir: &Path, wal: &Path, name: &str) -> bool {
    let Some(segment) = Segment::open(wal, name) else {
        return false;
    };
    let history = fs::read_to_string(history_file(data_dir, segment.timeline)).unwrap_or_default();
    let before = parse_history(&history);
    let Some(fork) = before.last().map(|line| line.switch.0) else {
        return false;
    };
    if !segment.covers(fork) || segment.reaches(fork) {
        return false;
    }
    let arrived = segment.arrived();
    before.iter().any(|line| {
        let other = Segment::open(wal, &format!("{:08X}{}", line.timeline.0, &name[8..]));
        other.is_some_and(|other| arrived <= other.arrived())
    })
}

/// A file of WAL.
struct Segment {
    file: File,
    timeline: u32,
    begins: u64,
    size: u64,
    /// Bytes of a page; nothing, where nothing has arrived.
    page: Option<u64>,
}

impl Segment {
    fn open(wal: &Path, name: &str) -> Option<Self> {
        let file = File::open(wal.join(name)).ok()?;
        let size = file.metadata().ok()?.len();
        if !size.is_power_of_two() || !SEGMENT.contains(&size) {
            return None;
        }
        let (timeline, number) = segment_of(name, (1 << 32) / size)?;
        let mut segment = Self {
            file,
            timeline,
            begins: number.checked_mul(size)?,
            size,
            page: None,
        };
        segment.read::<16>(0)?;
        if segment.has_head(0) {
            let page = u64::from(u32::from_ne_bytes(segment.read(PAGE_SIZE_AT)?));
            segment.page = Some(page).filter(|page| PAGE.contains(page) && page.is_power_of_two());
            // Who cannot tell its pages cannot tell that they are missing.
            segment.page?;
        }
        Some(segment)
    }

    fn covers(&self, at: u64) -> bool {
        (self.begins..self.begins + self.size).contains(&at)
    }

    /// Something of this file's own begins at `at`, where its timeline does.
    fn reaches(&self, at: u64) -> bool {
        let within = at - self.begins;
        let Some(page) = self.page else { return false };
        // A record begins with its length. What cannot be read is not taken for empty.
        let length = self.read::<4>(within);
        length.is_none_or(|length| length != [0; 4] && self.has_head(within - within % page))
    }

    /// How much has arrived, page after page.
    fn arrived(&self) -> u64 {
        let Some(page) = self.page else { return 0 };
        let mut end = 0;
        while end < self.size && self.has_head(end) {
            end += page;
        }
        end
    }

    /// A page begins there and says of itself that it belongs there.
    fn has_head(&self, within: u64) -> bool {
        // A magic number of two bytes, two of flags, four of the timeline, and the address.
        let Some(head) = self.read::<16>(within) else {
            return false;
        };
        let address = head[8..].try_into().map(u64::from_ne_bytes).ok();
        head[..2] != [0; 2] && address == Some(self.begins + within)
    }

    fn read<const N: usize>(&self, within: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, within).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;
    const PAGE: u64 = 8192;
    /// The fourth segment of a megabyte.
    const BEGINS: u64 = 3 * SIZE;

    /// Writes segment 3 of `timeline` with this many pages, and what stands at `fork`.
    fn write(wal: &Path, timeline: u32, pages: u64, fork: Option<(u64, u32)>) {
        let mut content = vec![0; usize::try_from(SIZE).unwrap()];
        let mut put = |within: u64, bytes: &[u8]| {
            let at = usize::try_from(within).unwrap();
            content[at..at + bytes.len()].copy_from_slice(bytes);
        };
        for page in 0..pages {
            put(page * PAGE, &0xD110_u16.to_ne_bytes());
            put(page * PAGE + 8, &(BEGINS + page * PAGE).to_ne_bytes());
        }
        if pages != 0 {
            put(PAGE_SIZE_AT, &8192_u32.to_ne_bytes());
        }
        if let Some((at, length)) = fork {
            put(at - BEGINS, &length.to_ne_bytes());
        }
        fs::write(wal.join(format!("{timeline:08X}0000000000000003")), content).unwrap();
    }

    /// Sweeps a directory whose last checkpoint is of the first timeline.
    fn swept(data_dir: &Path) {
        let entries = fs::read_dir(data_dir.join("pg_wal")).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        remove(data_dir, 1, &mut names).unwrap();
        assert!(
            names
                .iter()
                .all(|name| data_dir.join("pg_wal").join(name).exists())
        );
    }

    /// Which timelines' files are left, of a second one that left the first on its fifth page, with so much of either.
    fn left(first: Option<u64>, second: u64, record: Option<u32>) -> Vec<u32> {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        let fork = BEGINS + 4 * PAGE + 200;
        let line = format!("1\t0/{fork:X}\tno recovery target specified\n");
        fs::write(history_file(dir.path(), 2), line).unwrap();
        if let Some(pages) = first {
            write(&wal, 1, pages, Some((fork - 100, 60)));
        }
        write(&wal, 2, second, record.map(|length| (fork, length)));
        swept(dir.path());
        (1..=2)
            .filter(|timeline| wal.join(format!("{timeline:08X}0000000000000003")).exists())
            .collect()
    }

    #[test]
    fn a_segment_without_a_record_of_its_timeline_goes_if_another_has_as_much() {
        assert_eq!(left(Some(5), 0, None), [1]);
        assert_eq!(left(Some(5), 4, None), [1]);
        assert_eq!(left(Some(5), 5, None), [1], "its page is there, and no record");
        assert_eq!(left(Some(5), 5, Some(42)), [1, 2], "it has begun");
        assert_eq!(left(Some(3), 4, None), [1, 2], "the other has less");
        assert_eq!(left(None, 4, None), [2], "there is no other");
    }

    #[test]
    fn a_segment_of_the_timeline_of_the_last_checkpoint_stays() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        write(&wal, 1, 2, None);
        swept(dir.path());
        assert!(wal.join("000000010000000000000003").exists());
    }
}
