//! A configuration file as a person wrote it, in a story: `| ttl: 30`.
//!
//! Nothing of it is changed but words that begin with `$`, which stand for what differs from place to place:
//!
//! | word | stands for |
//! |---|---|
//! | `$name` | the member's name |
//! | `$address` | its address; `$address1`, `$address2`, … are those of all members |
//! | `$etcd` | etcd's members, `ADDRESS:PORT`, with commas between |
//! | `$balancer` | what stands before etcd, `ADDRESS:PORT` |
//! | `$data`, `$bin`, `$log`, `$pgpass`, `$sockets` | paths: the data directory, PostgreSQL's programs, … |
//! | `$password` | every password |
//! | `$nofailover`, `$delay` | the member's tag, and its `recovery_min_apply_delay` in seconds |
//!
//! Who plays the story in a world without configuration files goes by its `cluster` line, which a test holds against the file.

use std::fmt;

use crate::shape::Member;

/// The lines of a file; none if the story has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Literal(pub Vec<String>);

impl Literal {
    /// There is a file.
    #[must_use]
    pub fn given(&self) -> bool {
        !self.0.is_empty()
    }

    /// The value of a key that stands at the beginning of a line, such as `scope`.
    #[must_use]
    pub fn top(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.iter();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))
    }

    /// The file of a member: words are looked up in `words` first, then among what the member itself says.
    ///
    /// # Errors
    /// A word that stands for nothing; the text names it and its line.
    pub fn file(&self, member: &Member, words: &[(String, String)]) -> Result<String, String> {
        let own = [
            ("name".to_owned(), member.name.to_string()),
            ("nofailover".to_owned(), member.tags.nofailover.to_string()),
            (
                "delay".to_owned(),
                member.tags.recovery_min_apply_delay.to_string(),
            ),
        ];
        let mut text = String::new();
        for (index, line) in self.0.iter().enumerate() {
            let mut rest = line.as_str();
            while let Some((before, after)) = rest.split_once('$') {
                let length = after
                    .find(|char: char| !char.is_ascii_alphanumeric())
                    .unwrap_or(after.len());
                let (word, after) = after.split_at(length);
                let found = words.iter().chain(&own).find(|(name, _)| name == word);
                let (_, value) = found
                    .ok_or_else(|| format!("line {} of the file: nothing is called ${word}", index + 1))?;
                text += before;
                text += value;
                rest = after;
            }
            text += rest;
            text.push('\n');
        }
        Ok(text)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(f, "{}", format!("| {line}").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn words_are_filled_in_and_everything_else_stays() {
        let literal = Literal(vec!["name: $name".to_owned()]);
        let member = &Shape::of(1).members[0];
        assert_eq!(literal.file(member, &[]), Ok("name: n1\n".to_owned()));
        assert_eq!(literal.top("name"), Some("$name"));
        assert_eq!(literal.top("nam"), None);
        let literal = Literal(vec!["a: '$address1/32'  # b".to_owned()]);
        let words = [("address1".to_owned(), "10.0.0.1".to_owned())];
        assert_eq!(
            literal.file(member, &words),
            Ok("a: '10.0.0.1/32'  # b\n".to_owned())
        );
        assert_eq!(
            literal.file(member, &[]),
            Err("line 1 of the file: nothing is called $address1".to_owned())
        );
    }
}
