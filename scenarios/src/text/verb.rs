//! Verbs: a word with arguments, and the macro that gives an enum of them its text form.

use std::fmt;

/// How a verb is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// Its word. One that ends in `=` is written together with its first argument.
    pub word: &'static str,
    /// The arguments without key.
    pub positions: &'static [&'static str],
    /// The arguments with key.
    pub keys: &'static [Key],
    /// What it does, as in the documentation of the variant.
    pub about: &'static str,
}

/// A key of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its word.
    pub word: &'static str,
    /// It may be left out.
    pub optional: bool,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)?;
        for (index, position) in self.positions.iter().enumerate() {
            let blank = if index == 0 && self.word.ends_with('=') {
                ""
            } else {
                " "
            };
            write!(f, "{blank}{}", position.to_uppercase())?;
        }
        for Key { word, optional } in self.keys {
            if *optional {
                write!(f, " [{word}=]")?;
            } else {
                write!(f, " {word}=")?;
            }
        }
        Ok(())
    }
}

/// An enum whose variants are verbs: arguments without key in `( )`, those with in `{ }`, where `= value` is what a key that
/// is left out means.
macro_rules! verbs {
    (
        $(#[$meta:meta])*
        $name:ident $what:literal {
            $(
                $(#[doc = $about:literal])*
                $variant:ident $word:literal
                ( $( $(#[$pmeta:meta])* $pos:ident : $pty:ty ),* $(,)? )
                { $( $(#[$kmeta:meta])* $key:ident $kword:literal : $kty:ty $(= $default:expr)? ),* $(,)? },
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $about])* $variant {
                $( $(#[$pmeta])* $pos: $pty, )*
                $( $(#[$kmeta])* $key: $kty, )*
            }, )*
        }

        impl $name {
            /// How each is written.
            pub const VERBS: &'static [$crate::text::Verb] = &[$(
                $crate::text::Verb {
                    word: $word,
                    positions: &[$(stringify!($pos),)*],
                    keys: &[$( $crate::text::Key {
                        word: $kword,
                        optional: $crate::text::verbs!(@optional $($default)?),
                    }, )*],
                    about: concat!($($about, "\n",)*),
                },
            )*];

            /// Its word.
            #[must_use]
            pub const fn word(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $word, )* }
            }

            /// Reads the arguments of `word`; `None` if it is not one of these.
            pub(crate) fn read(
                word: &str,
                args: &mut $crate::text::Args,
            ) -> Result<Option<Self>, $crate::text::ParseError> {
                Ok(match word {
                    $( $word => Some(Self::$variant {
                        $( $pos: args.position(stringify!($pos))?, )*
                        $( $key: $crate::text::verbs!(@take args $kword, $kty $(, $default)?), )*
                    }), )*
                    _ => None,
                })
            }

            /// Calls `visit` with each name in it.
            #[allow(unused_variables, clippy::allow_attributes, reason = "verbs without arguments")]
            pub fn names(&self, visit: &mut dyn FnMut(&$crate::text::Name)) {
                match self {
                    $( Self::$variant { $($pos,)* $($key,)* } => {
                        $( $crate::text::Value::names($pos, visit); )*
                        $( $crate::text::Value::names($key, visit); )*
                    } )*
                }
            }

            /// Any of them.
            #[cfg(test)]
            pub(crate) fn sample(dice: &mut $crate::text::Dice) -> Self {
                let verb = Self::VERBS[dice.index(Self::VERBS.len())].word;
                match verb {
                    $( $word => Self::$variant {
                        $( $pos: $crate::text::Value::sample(dice), )*
                        $( $key: $crate::text::Value::sample(dice), )*
                    }, )*
                    _ => unreachable!("a verb of the list"),
                }
            }
        }

        impl std::fmt::Display for $name {
            #[allow(unused_mut, unused_variables, unused_assignments, clippy::allow_attributes, reason = "verbs without arguments")]
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())?;
                match self {
                    $( Self::$variant { $($pos,)* $($key,)* } => {
                        let mut blank = if $word.ends_with('=') { "" } else { " " };
                        $(
                            write!(f, "{blank}{}", $crate::text::Text($pos))?;
                            blank = " ";
                        )*
                        $( $crate::text::verbs!(@put f $key $kword $(, $default)?); )*
                    } )*
                }
                Ok(())
            }
        }
    };

    (@optional) => { false };
    (@optional $default:expr) => { true };
    (@take $args:ident $kword:literal, $kty:ty) => { $args.required::<$kty>($kword)? };
    (@take $args:ident $kword:literal, $kty:ty, $default:expr) => {
        $args.key::<$kty>($kword)?.unwrap_or($default)
    };
    (@put $f:ident $key:ident $kword:literal) => {
        write!($f, " {}={}", $kword, $crate::text::Text($key))?
    };
    (@put $f:ident $key:ident $kword:literal, $default:expr) => {
        if *$key != $default {
            write!($f, " {}={}", $kword, $crate::text::Text($key))?
        }
    };
}
pub(crate) use verbs;
