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
//! Who plays the story in the fast world, which has no configuration files, goes by its `cluster` line, which a test holds against the file.

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
    fn top(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.iter();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim))
    }

    /// What the cluster's keys begin with in etcd, by the file's `namespace` and `scope`; of a story without a file, by `scope` alone.
    #[must_use]
    pub fn prefix(&self, scope: &str) -> String {
        let namespace = self.top("namespace").unwrap_or("/service/").trim_matches('/');
        format!("/{namespace}/{}/", self.top("scope").unwrap_or(scope))
    }

    /// The file uses this word.
    #[must_use]
    pub fn uses(&self, word: &str) -> bool {
        let word = format!("${word}");
        self.0.iter().any(|line| line.contains(&word))
    }

    /// The file of a member.
    ///
    /// # Errors
    /// A word that stands for nothing; the text names it and its line.
    pub fn file(&self, member: &Member, words: &Words) -> Result<String, String> {
        let mut text = String::new();
        for (index, line) in self.0.iter().enumerate() {
            let mut rest = line.as_str();
            while let Some((before, after)) = rest.split_once('$') {
                let length = after
                    .find(|char: char| !char.is_ascii_alphanumeric())
                    .unwrap_or(after.len());
                let (word, after) = after.split_at(length);
                let value = words
                    .of(word, member)
                    .ok_or_else(|| format!("line {} of the file: nothing is called ${word}", index + 1))?;
                text += before;
                text += &value;
                rest = after;
            }
            text += rest;
            text.push('\n');
        }
        Ok(text)
    }
}

/// What words stand for in the place where a story is played, for one of its members.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The member's address.
    pub address: String,
    /// Those of all members, in the shape's order.
    pub members: Vec<String>,
    /// etcd's members, `ADDRESS:PORT`.
    pub etcd: Vec<String>,
    /// What stands before etcd, `ADDRESS:PORT`; a story without routers has nothing there.
    pub balancer: Option<String>,
    /// The data directory.
    pub data: String,
    /// The directory of PostgreSQL's programs.
    pub bin: String,
    /// The directory of logs.
    pub log: String,
    /// The file of passwords.
    pub pgpass: String,
    /// The directory of sockets.
    pub sockets: String,
    /// Every password.
    pub password: String,
}

impl Words {
    fn of(&self, word: &str, member: &Member) -> Option<String> {
        Some(match word {
            "name" => member.name.to_string(),
            "nofailover" => member.tags.nofailover.to_string(),
            "delay" => member.tags.recovery_min_apply_delay.to_string(),
            "address" => self.address.clone(),
            "etcd" => self.etcd.join(","),
            "balancer" => self.balancer.clone()?,
            "data" => self.data.clone(),
            "bin" => self.bin.clone(),
            "log" => self.log.clone(),
            "pgpass" => self.pgpass.clone(),
            "sockets" => self.sockets.clone(),
            "password" => self.password.clone(),
            _ => {
                let number: usize = word.strip_prefix("address")?.parse().ok()?;
                self.members.get(number.checked_sub(1)?)?.clone()
            }
        })
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
        let mut words = Words::default();
        assert_eq!(literal.file(member, &words), Ok("name: n1\n".to_owned()));
        assert_eq!(literal.top("name"), Some("$name"));
        assert_eq!(literal.top("nam"), None);
        assert_eq!(literal.prefix("x"), "/service/x/");
        assert!(literal.uses("name") && !literal.uses("etcd"));
        let literal = Literal(vec!["a: '$address1/32'  # b".to_owned()]);
        assert_eq!(
            literal.file(member, &words),
            Err("line 1 of the file: nothing is called $address1".to_owned())
        );
        words.members = vec!["10.0.0.1".to_owned()];
        assert_eq!(
            literal.file(member, &words),
            Ok("a: '10.0.0.1/32'  # b\n".to_owned())
        );
    }
}
