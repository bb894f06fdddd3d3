//! A line as tokens, and the arguments of a verb.
//!
//! Tokens are separated by blanks; quotes keep blanks and `#` inside a token; an unquoted `#` begins a comment.

use super::error::{At, ParseError, nearest};
use super::value::Value;
use super::verb::Verb;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text, with quotes.
    pub(crate) text: String,
    /// Where it begins.
    pub(crate) at: At,
}

impl Token {
    /// An error about this token.
    pub(crate) fn wrong(&self, expected: impl Into<String>, nearest: Option<String>) -> ParseError {
        ParseError {
            at: self.at,
            found: self.text.clone(),
            expected: expected.into(),
            nearest,
        }
    }
}

/// Splits a line; the second is its end, for errors about what is missing.
pub(crate) fn line(number: usize, text: &str) -> Result<(Vec<Token>, At), ParseError> {
    let mut tokens: Vec<Token> = Vec::new();
    let (mut open, mut quoted, mut escaped) = (false, false, false);
    let mut column = 0;
    for char in text.chars() {
        column += 1;
        let at = At { line: number, column };
        if !quoted && char == '#' && !open {
            break;
        }
        if !quoted && char.is_whitespace() {
            open = false;
            continue;
        }
        if !open {
            open = true;
            tokens.push(Token {
                text: String::new(),
                at,
            });
        }
        if char == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && char == '\\' && !escaped;
        if let Some(token) = tokens.last_mut() {
            token.text.push(char);
        }
    }
    let end = At {
        line: number,
        column: column + 1,
    };
    match tokens.last() {
        Some(token) if quoted => Err(token.wrong("a closing quote", None)),
        _ => Ok((tokens, end)),
    }
}

/// The tokens after a verb: first those without a key, in order, then `key=value` in any order.
#[derive(Debug)]
pub(crate) struct Args {
    tokens: Vec<Token>,
    end: At,
}

impl Args {
    pub(crate) fn new(tokens: Vec<Token>, end: At) -> Self {
        Self { tokens, end }
    }

    /// No tokens.
    pub(crate) fn empty() -> Self {
        Self::new(Vec::new(), At { line: 0, column: 0 })
    }

    /// A verb: one that ends in `=` is cut from its first argument, which becomes the next token.
    pub(crate) fn verb(&mut self, expected: &str, verbs: &[Verb]) -> Result<Token, ParseError> {
        let mut token = self.word(expected)?;
        let joined = |verb: &&Verb| verb.word.ends_with('=') && token.text.starts_with(verb.word);
        if let Some(verb) = verbs.iter().find(joined) {
            let mut rest = token.clone();
            rest.text = token.text.split_off(verb.word.len());
            rest.at.column += verb.word.len();
            if !rest.text.is_empty() {
                self.tokens.insert(0, rest);
            }
        }
        Ok(token)
    }

    /// The next token, which stays.
    pub(crate) fn peek(&self) -> Option<&Token> {
        self.tokens.first()
    }

    /// All arguments without key up to the first key.
    pub(crate) fn positions<T: Value>(&mut self, name: &str) -> Result<Vec<T>, ParseError> {
        let mut values = Vec::new();
        while self
            .tokens
            .first()
            .is_some_and(|token| key_of(&token.text).is_none())
        {
            values.push(self.position(name)?);
        }
        Ok(values)
    }

    /// The next token as it stands.
    pub(crate) fn next(&mut self) -> Option<Token> {
        (!self.tokens.is_empty()).then(|| self.tokens.remove(0))
    }

    /// The next token, which must be there.
    pub(crate) fn word(&mut self, expected: &str) -> Result<Token, ParseError> {
        self.next().ok_or_else(|| self.missing(expected))
    }

    /// All tokens after the word `separator`, which goes too.
    pub(crate) fn split_off(&mut self, separator: &str) -> Option<Self> {
        let index = self.tokens.iter().position(|token| token.text == separator)?;
        let rest = self.tokens.split_off(index + 1);
        self.tokens.pop();
        Some(Self::new(rest, self.end))
    }

    /// Says that the line ends too early.
    pub(crate) fn missing(&self, expected: &str) -> ParseError {
        ParseError {
            at: self.end,
            found: String::new(),
            expected: expected.to_owned(),
            nearest: None,
        }
    }

    /// The next argument without a key.
    pub(crate) fn position<T: Value>(&mut self, name: &str) -> Result<T, ParseError> {
        let keyed = |token: &Token| key_of(&token.text).is_some();
        match self.tokens.first() {
            Some(token) if !keyed(token) => {
                let token = self.tokens.remove(0);
                read(&token, &token.text)
            }
            Some(token) => Err(token.wrong(format!("{name}: {}", T::WHAT), None)),
            None => Err(self.missing(&format!("{name}: {}", T::WHAT))),
        }
    }

    /// The value of a key, if it was given.
    pub(crate) fn key<T: Value>(&mut self, key: &str) -> Result<Option<T>, ParseError> {
        let Some(index) = self
            .tokens
            .iter()
            .position(|token| key_of(&token.text) == Some(key))
        else {
            return Ok(None);
        };
        let mut token = self.tokens.remove(index);
        token.at.column += key.chars().count() + 1;
        token.text = token.text.split_off(key.len() + 1);
        read(&token, &token.text).map(Some)
    }

    /// The value of a key that must be given.
    pub(crate) fn required<T: Value>(&mut self, key: &str) -> Result<T, ParseError> {
        self.key(key)?
            .ok_or_else(|| self.missing(&format!("{key}={}", T::WHAT)))
    }

    /// Nothing may be left.
    pub(crate) fn finish(self, keys: &[&str]) -> Result<(), ParseError> {
        let Some(token) = self.tokens.into_iter().next() else {
            return Ok(());
        };
        let found = key_of(&token.text).unwrap_or(&token.text);
        if keys.contains(&found) {
            return Err(token.wrong("each key once", None));
        }
        let expected = match keys {
            [] => "the end of the line".to_owned(),
            keys => format!("one of {}=", keys.join("=, ")),
        };
        let like = nearest(found, keys.iter().copied());
        Err(token.wrong(expected, like.map(|key| format!("{key}="))))
    }
}

/// The key of `key=value`.
fn key_of(text: &str) -> Option<&str> {
    let (key, _) = text.split_once('=')?;
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '-';
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

fn read<T: Value>(token: &Token, text: &str) -> Result<T, ParseError> {
    T::read(text).ok_or_else(|| token.wrong(T::WHAT, nearest(text, T::WORDS.iter().copied())))
}
