//! Synchronous replication: `synchronous_standby_names`, and which standbys a commit waits for.
//!
//! Nothing of it is one fact of one moment. After a reload the checkpointer says whether backends wait at all; each walsender computes
//! its own priority when *it* has read the file, and releases waiters by its own copy; and `pg_stat_replication` shows the names as
//! the asking backend has them. So a standby is reported `sync` before it holds what was committed until then (B-024), and for a moment
//! commits are acknowledged by the rules of before.

/// `synchronous_standby_names`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SyncNames {
    /// Empty: nobody is waited for.
    #[default]
    None,
    /// `FIRST n (…)`, and the old forms without a word.
    First(usize, Vec<String>),
    /// `ANY n (…)`.
    Any(usize, Vec<String>),
}

/// A walsender as synchronous replication sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its priority: 0 is asynchronous, 1 comes first.
    pub priority: usize,
    /// It streams (catching up is not enough), and has reported a flush position.
    pub streams: bool,
    /// Positions reported: written, flushed, applied.
    pub reported: [u64; 3],
}

impl SyncNames {
    /// Rules by the members' numbers, as the record tells them.
    pub fn told(rules: &[Self], member: impl Fn(&str) -> Option<usize>) -> Vec<(Vec<usize>, usize)> {
        let told = |rule: &Self| match rule {
            Self::None => (Vec::new(), 0),
            Self::First(count, names) | Self::Any(count, names) => {
                (names.iter().filter_map(|name| member(name)).collect(), *count)
            }
        };
        rules.iter().map(told).collect()
    }

    /// Parses the setting.
    ///
    /// # Errors
    ///
    /// What PostgreSQL would refuse; the former setting stays in effect.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut rest = tokens.as_slice();
        if rest.is_empty() {
            return Ok(Self::None);
        }
        let mut any = false;
        let word = |expected: &str, rest: &mut &[Token]| {
            let hit = matches!(rest.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(expected))
                && matches!(rest.get(1), Some(Token::Word(number)) if number.parse::<usize>().is_ok());
            if hit {
                *rest = &rest[1..];
            }
            hit
        };
        if word("any", &mut rest) {
            any = true;
        } else {
            word("first", &mut rest);
        }
        let counted = match (rest.first(), rest.get(1)) {
            (Some(Token::Word(number)), Some(Token::Open)) => number.parse::<usize>().ok(),
            _ => None,
        };
        let names = if let Some(count) = counted {
            if count == 0 {
                return Err("number of synchronous standbys (0) must be greater than zero".to_owned());
            }
            let (Some(Token::Close), inner) = (rest.last(), &rest[2..rest.len() - 1]) else {
                return Err("the list is not closed".to_owned());
            };
            (count, list(inner)?)
        } else {
            (1, list(rest)?)
        };
        Ok(if any {
            Self::Any(names.0, names.1)
        } else {
            Self::First(names.0, names.1)
        })
    }

    /// The priority of a standby of this name: 0 if it is not meant. Names are compared without regard to case, as PostgreSQL does.
    #[must_use]
    pub fn priority(&self, application_name: &str) -> usize {
        let (names, quorum) = match self {
            Self::None => return 0,
            Self::First(_, names) => (names, false),
            Self::Any(_, names) => (names, true),
        };
        let found = names
            .iter()
            .position(|name| name == "*" || name.eq_ignore_ascii_case(application_name));
        match found {
            None => 0,
            Some(_) if quorum => 1,
            Some(index) => index + 1,
        }
    }

    /// The positions up to which commits are covered, or `None` while too few standbys stream.
    #[must_use]
    pub fn covered(&self, candidates: &[Candidate]) -> Option<[u64; 3]> {
        let (count, quorum) = match self {
            Self::None => return None,
            Self::First(count, _) => (*count, false),
            Self::Any(count, _) => (*count, true),
        };
        let chosen = self.chosen(candidates);
        if chosen.len() < count {
            return None;
        }
        let mut covered = [0; 3];
        for (kind, position) in covered.iter_mut().enumerate() {
            let mut reported: Vec<u64> = chosen
                .iter()
                .map(|index| candidates[*index].reported[kind])
                .collect();
            reported.sort_unstable();
            *position = if quorum {
                reported[reported.len() - count]
            } else {
                reported[0]
            };
        }
        Some(covered)
    }

    /// The standbys that count, by index: the first `n` by priority, or all that may be of a quorum.
    #[must_use]
    pub fn chosen(&self, candidates: &[Candidate]) -> Vec<usize> {
        let mut able: Vec<usize> = (0..candidates.len())
            .filter(|index| candidates[*index].streams && 0 < candidates[*index].priority)
            .collect();
        if let Self::First(count, _) = self {
            able.sort_by_key(|index| (candidates[*index].priority, *index));
            able.truncate(*count);
        }
        able
    }

    /// `pg_stat_replication.sync_state` of a standby, as a backend with these names in effect reports it.
    #[must_use]
    pub fn state(&self, candidates: &[Candidate], index: usize) -> &'static str {
        if candidates[index].priority == 0 || candidates[index].reported[1] == 0 {
            return "async";
        }
        if !self.chosen(candidates).contains(&index) {
            return "potential";
        }
        match self {
            Self::Any(..) => "quorum",
            _ => "sync",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            '*' => tokens.push(Token::Quoted("*".to_owned())),
            '"' => {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            name.push('"');
                        }
                        Some('"') => break,
                        Some(c) => name.push(c),
                        None => return Err("unterminated quoted name".to_owned()),
                    }
                }
                tokens.push(Token::Quoted(name));
            }
            c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => {
                let mut word = String::from(c);
                while let Some(c) = chars.peek()
                    && (c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii())
                {
                    word.push(*c);
                    chars.next();
                }
                tokens.push(Token::Word(word));
            }
            other => return Err(format!("syntax error at {other:?}")),
        }
    }
    Ok(tokens)
}

fn list(tokens: &[Token]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match (index % 2, token) {
            (0, Token::Quoted(name)) => names.push(name.clone()),
            (0, Token::Word(name))
                if !name.starts_with(|c: char| c.is_ascii_digit()) || name.parse::<u64>().is_ok() =>
            {
                names.push(name.clone());
            }
            (1, Token::Comma) => {}
            _ => return Err("syntax error in the list of names".to_owned()),
        }
    }
    if tokens.len().is_multiple_of(2) {
        return Err("syntax error in the list of names".to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(priority: usize, flushed: u64) -> Candidate {
        Candidate {
            priority,
            streams: true,
            reported: [flushed, flushed, flushed],
        }
    }

    #[test]
    fn names_are_parsed_as_postgresql_does() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let parse = |text| SyncNames::parse(text);
        assert_eq!(parse(" "), Ok(SyncNames::None));
        assert_eq!(parse("a, \"B-1\""), Ok(SyncNames::First(1, names(&["a", "B-1"]))));
        assert_eq!(parse("2 (a,b)"), Ok(SyncNames::First(2, names(&["a", "b"]))));
        assert_eq!(parse("FIRST 1 (*)"), Ok(SyncNames::First(1, names(&["*"]))));
        assert_eq!(
            parse("any 1 (a, \"x\"\"y\")"),
            Ok(SyncNames::Any(1, names(&["a", "x\"y"])))
        );
        for wrong in ["a-b", "ANY 0 (a)", "ANY 1 (a", "a b", "\"a", "FIRST 1 ()", "a,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn first_waits_for_the_slowest_of_the_first_and_any_for_the_quickest() {
        let standbys = [standby(1, 500), standby(2, 300), standby(3, 900)];
        let names = || vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let first = SyncNames::First(2, names());
        assert_eq!(first.covered(&standbys), Some([300; 3]));
        assert_eq!(first.state(&standbys, 2), "potential");
        let any = SyncNames::Any(1, names());
        let equals = standbys.map(|candidate| Candidate {
            priority: 1,
            ..candidate
        });
        assert_eq!(any.covered(&equals), Some([900; 3]));
        assert_eq!(any.state(&equals, 0), "quorum");
        assert_eq!(SyncNames::Any(2, names()).covered(&standbys[..1]), None);
    }

    #[test]
    fn a_standby_that_has_reported_nothing_is_asynchronous() {
        let fresh = [Candidate {
            streams: false,
            ..standby(1, 0)
        }];
        let names = SyncNames::First(1, vec!["a".to_owned()]);
        assert_eq!(names.state(&fresh, 0), "async");
        assert_eq!(names.covered(&fresh), None);
    }
}
