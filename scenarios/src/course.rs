//! The course of a run: who took writes on which timeline, one after the other. It is what a run in one world and a run of the same
//! story in another can be compared by.
//!
//! Who is elected first among equals is chance in every world, so members have no names here: the first that took writes is `A`,
//! the next other one `B`, and so on. Timelines count from that of the first reign. `A1 B2 A3` is a failover and a way back.

use std::fmt;

/// Who took writes, on which timeline, in this order. A server that comes back on its timeline goes on with its reign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Course(Vec<(usize, u32)>);

impl Course {
    /// The reigns of members, each with its timeline, in the order in which they began.
    #[must_use]
    pub fn of(reigns: impl IntoIterator<Item = (usize, u32)>) -> Self {
        let mut known: Vec<usize> = Vec::new();
        let mut base = None;
        let mut course: Vec<(usize, u32)> = Vec::new();
        for (member, timeline) in reigns {
            let letter = known
                .iter()
                .position(|known| *known == member)
                .unwrap_or(known.len());
            if letter == known.len() {
                known.push(member);
            }
            let base = *base.get_or_insert(timeline);
            let reign = (letter, (timeline + 1).saturating_sub(base));
            if course.last() != Some(&reign) {
                course.push(reign);
            }
        }
        Self(course)
    }

    /// The course without who of several others it was, which is chance: `1 >2 =3` is a failover, and a new timeline in place.
    #[must_use]
    pub fn outline(&self) -> String {
        let mut before = None;
        let words = self
            .0
            .iter()
            .map(|(member, timeline)| match before.replace(*member) {
                None => timeline.to_string(),
                Some(before) if before == *member => format!("={timeline}"),
                Some(_) => format!(">{timeline}"),
            });
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return "-".to_owned();
        }
        words.join(" ")
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, (member, timeline)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            // There are no more members in a story than letters.
            let letter = u8::try_from(*member).map_or('?', |member| char::from(b'A'.saturating_add(member)));
            write!(f, "{space}{letter}{timeline}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_does_not_matter_but_whether_it_is_another() {
        let text = |reigns: &[(usize, u32)]| Course::of(reigns.iter().copied()).to_string();
        assert_eq!(text(&[]), "-");
        assert_eq!(text(&[(2, 1), (2, 1), (0, 2), (2, 3)]), "A1 B2 A3");
        assert_eq!(text(&[(0, 4), (1, 5), (0, 6)]), "A1 B2 A3");
        assert_ne!(
            text(&[(0, 1), (0, 2)]),
            text(&[(0, 1), (1, 2)]),
            "a new timeline in place is no failover"
        );
    }

    #[test]
    fn an_outline_tells_a_failover_from_a_new_timeline_in_place() {
        let outline = |reigns: &[(usize, u32)]| Course::of(reigns.iter().copied()).outline();
        assert_eq!(outline(&[]), "-");
        assert_eq!(outline(&[(0, 1), (1, 2), (1, 3), (0, 4)]), "1 >2 =3 >4");
        assert_eq!(
            outline(&[(0, 1), (1, 2), (2, 3)]),
            outline(&[(0, 1), (1, 2), (0, 3)])
        );
    }
}
