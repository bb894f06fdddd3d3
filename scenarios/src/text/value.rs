//! Values of arguments: times, names, numbers, switches, lists, and closed sets of words.

use std::fmt::{self, Write as _};

/// A value with a text form that gives the same value when read.
pub trait Value: Sized {
    /// What is expected, for errors.
    const WHAT: &'static str;
    /// The words that are allowed, for "did you mean".
    const WORDS: &'static [&'static str] = &[];
    /// Reads it; `None` if the text is none.
    fn read(text: &str) -> Option<Self>;
    /// Writes it.
    ///
    /// # Errors
    /// Those of the formatter.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// Calls `visit` with each name of a member, etcd member, client or router that it holds.
    fn names(&self, _visit: &mut dyn FnMut(&Name)) {}
    /// Any value, for tests of the round trip.
    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self;
}

/// A value in a format string.
pub(crate) struct Text<'a, T>(pub(crate) &'a T);

impl<T: Value> fmt::Display for Text<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

/// A time or a span of time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Until all faults are healed.
    pub const FOREVER: Self = Self(u64::MAX);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Of milliseconds.
    #[must_use]
    pub const fn ms(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Of seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// The sum, [`Self::FOREVER`] if it is too large.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, zero if it would be negative.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Units of time, largest first.
const UNITS: &[(&str, u64)] = &[
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::FOREVER {
            return f.write_str("forever");
        }
        let (unit, scale) = match self.0 {
            0 => ("s", 1_000_000_000),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("us", 1000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        write!(f, "{}", self.0 / scale)?;
        let rest = self.0 % scale;
        if rest != 0 {
            let width = scale.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

impl Value for Nanos {
    const WHAT: &'static str = "a time such as 5s, 250ms, 2min or forever";

    fn read(text: &str) -> Option<Self> {
        if text == "forever" {
            return Some(Self::FOREVER);
        }
        let (number, scale) = UNITS
            .iter()
            .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || 12 < part.len() {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let fraction: u128 = part.parse().ok()?;
        let divisor = 10_u128.pow(u32::try_from(part.len()).ok()?);
        let fraction = fraction * u128::from(scale);
        if !fraction.is_multiple_of(divisor) {
            return None;
        }
        let nanos = whole.checked_mul(u128::from(scale))? + fraction / divisor;
        u64::try_from(nanos).ok().map(Self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::secs(dice.below(100)),
            1 => Self::ms(dice.below(10_000)),
            2 => Self(dice.below(u64::MAX)),
            _ => [Self::ZERO, Self::FOREVER][dice.index(2)],
        }
    }
}

/// The name of a member, an etcd member, a client or a router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub String);

impl Name {
    /// The name as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Words that stand for something else where a name could stand: a member called so is quoted.
const RESERVED: &[&str] = &[
    "leader",
    "former-leader",
    "candidate",
    "replica",
    "any",
    "here",
    "nobody",
    "etcd",
    "clients",
    "peers",
    "replicas",
    "all",
    "direct",
    "on",
    "off",
    "forever",
    "default",
    "do",
    "at",
    "follower",
];

impl Value for Name {
    const WHAT: &'static str = "a name";

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix('"') {
            Some(rest) => {
                let mut name = String::new();
                let mut chars = rest.strip_suffix('"')?.chars();
                while let Some(char) = chars.next() {
                    match char {
                        '\\' => name.push(chars.next()?),
                        '"' => return None,
                        char => name.push(char),
                    }
                }
                (!name.is_empty()).then_some(Self(name))
            }
            None => {
                let plain = |char: char| char.is_alphanumeric() || "_-.".contains(char);
                let plain = !text.is_empty() && text.chars().all(plain) && !RESERVED.contains(&text);
                plain.then(|| Self(text.to_owned()))
            }
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Self::read(&self.0).is_some_and(|read| read == *self) {
            return f.write_str(&self.0);
        }
        f.write_char('"')?;
        for char in self.0.chars() {
            if char == '"' || char == '\\' {
                f.write_char('\\')?;
            }
            f.write_char(char)?;
        }
        f.write_char('"')
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        visit(self);
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self {
        let names = [
            "n1",
            "n2",
            "N-3.x",
            "leader",
            "ANY",
            "do",
            "a b",
            "x=\"1\"",
            "back\\slash",
            "é#,|@",
        ];
        Self(names[dice.index(names.len())].to_owned())
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const WHAT: &'static str = "a whole number";
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
            #[cfg(test)]
            fn sample(dice: &mut Dice) -> Self {
                dice.below(100) as Self
            }
        }
    )*};
}

numbers!(u8, u32, u64, i64);

impl Value for bool {
    const WHAT: &'static str = "on or off";
    const WORDS: &'static [&'static str] = &["on", "off"];

    fn read(text: &str) -> Option<Self> {
        match text {
            "on" | "true" => Some(true),
            "off" | "false" => Some(false),
            _ => None,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self { "on" } else { "off" })
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self {
        dice.below(2) == 0
    }
}

impl<T: Value> Value for Option<T> {
    const WHAT: &'static str = T::WHAT;
    const WORDS: &'static [&'static str] = T::WORDS;

    fn read(text: &str) -> Option<Self> {
        T::read(text).map(Some)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |value| value.write(f))
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        if let Some(value) = self {
            value.names(visit);
        }
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self {
        (dice.below(2) == 0).then(|| T::sample(dice))
    }
}

impl<T: Value> Value for Vec<T> {
    const WHAT: &'static str = "a list such as n1,n2";
    const WORDS: &'static [&'static str] = T::WORDS;

    fn read(text: &str) -> Option<Self> {
        let (mut quoted, mut escaped) = (false, false);
        text.split(|char| {
            if char == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = quoted && char == '\\' && !escaped;
            char == ',' && !quoted
        })
        .map(T::read)
        .collect()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.iter().enumerate() {
            if index != 0 {
                f.write_char(',')?;
            }
            value.write(f)?;
        }
        Ok(())
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        for value in self {
            value.names(visit);
        }
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice) -> Self {
        (0..=dice.below(3)).map(|_| T::sample(dice)).collect()
    }
}

/// A closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident $what:literal { $($(#[$vmeta:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::text::Value for $name {
            const WHAT: &'static str = $what;
            const WORDS: &'static [&'static str] = &[$($word,)*];

            fn read(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == text)
            }

            fn write(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }

            #[cfg(test)]
            fn sample(dice: &mut $crate::text::Dice) -> Self {
                Self::ALL[dice.index(Self::ALL.len())]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use words;

/// Chance for the tests of the round trip.
#[cfg(test)]
pub struct Dice(pub u64);

#[cfg(test)]
impl Dice {
    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = self.0 ^ (self.0 >> 33);
        mixed.wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31) % bound
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}
