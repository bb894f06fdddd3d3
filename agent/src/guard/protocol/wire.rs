//! Enums that travel as numbers.

/// Declares an enum with a number for each of its values, and `from_wire`, which reads one: `None` for a number of a later version.
macro_rules! wire {
    (
        $(#[$about:meta])*
        pub enum $name:ident: $number:ident {
            $($(#[$meaning:meta])* $value:ident = $wire:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr($number)]
        pub enum $name {
            $($(#[$meaning])* $value = $wire,)+
        }

        impl $name {
            pub(crate) const fn from_wire(number: $number) -> Option<Self> {
                match number {
                    $($wire => Some(Self::$value),)+
                    _ => None,
                }
            }
        }
    };
}
