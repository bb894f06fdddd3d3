//! Names of replication slots.

use std::borrow::Cow;

/// The name of a member's physical slot: lower case, `-` and `.` become `_`, anything else that a slot name may not hold
/// becomes `u` and its code point in at least four decimal digits, cut to PostgreSQL's 63 bytes. Patroni's rule (as observed on
/// 4.1.5), so that both find each other's slots.
#[must_use]
pub fn slot_name(member: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if member.len() <= 63 && member.bytes().all(plain) {
        return Cow::Borrowed(member);
    }
    let mut name = String::new();
    for c in member.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(63);
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::slot_name;

    #[test]
    fn names_become_slot_names() {
        assert_eq!(slot_name("Node-1.example"), "node_1_example");
        for (member, slot) in [
            ("ä b", "u0228u0032b"),
            ("日本", "u26085u26412"),
            ("A_b:9", "a_bu00589"),
        ] {
            assert_eq!(slot_name(member), slot);
        }
        assert_eq!(slot_name(&"x".repeat(80)).len(), 63);
    }
}
