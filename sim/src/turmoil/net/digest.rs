//! What is left of all that was sent: a hash and a count, so that two runs can be compared byte by byte without keeping a byte.

/// FNV-1a's.
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The digest of a network.
#[derive(Debug)]
pub(super) struct Digest {
    /// The hash.
    pub(super) hash: u64,
    /// Packets.
    pub(super) packets: u64,
}

impl Digest {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            packets: 0,
        }
    }

    /// A packet was sent: its header in words, and what it carries.
    pub(super) fn note(&mut self, header: &[u64], payload: &[u8]) {
        self.packets += 1;
        for word in header {
            self.hash = (self.hash ^ word).wrapping_mul(PRIME);
        }
        for byte in payload {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
}
