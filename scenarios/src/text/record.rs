//! Records: a set of `key=value` with defaults, and the macro that gives a struct of them its text form.

/// A struct whose fields are keys with defaults; only what differs from its default is written.
macro_rules! records {
    ($(#[$meta:meta])* $name:ident { $( $(#[$fmeta:meta])* $field:ident $word:literal : $ty:ty = $default:expr ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// The keys.
            pub const KEYS: &'static [&'static str] = &[$($word,)*];

            /// Takes the keys that are there.
            pub(crate) fn read(args: &mut $crate::text::Args) -> Result<Self, $crate::text::ParseError> {
                let usual = Self::default();
                Ok(Self { $( $field: args.key::<$ty>($word)?.unwrap_or(usual.$field), )* })
            }

            /// Sets one key; `None` if there is no such key, or the value is none.
            #[must_use]
            pub fn with(mut self, key: &str, value: &str) -> Option<Self> {
                match key {
                    $( $word => self.$field = <$ty as $crate::text::Value>::read(value)?, )*
                    _ => return None,
                }
                Some(self)
            }

            /// Calls `visit` with each name in it.
            pub fn names(&self, visit: &mut dyn FnMut(&$crate::text::Name)) {
                $( $crate::text::Value::names(&self.$field, visit); )*
            }

            #[cfg(test)]
            pub(crate) fn sample(dice: &mut $crate::text::Dice) -> Self {
                Self { $( $field: $crate::text::Value::sample(dice), )* }
            }
        }

        impl std::fmt::Display for $name {
            /// Each key with a blank before it.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let usual = Self::default();
                $( if self.$field != usual.$field {
                    write!(f, " {}={}", $word, $crate::text::Text(&self.$field))?;
                } )*
                Ok(())
            }
        }
    };
}
pub(crate) use records;
