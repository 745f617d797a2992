//! Placeholder.
/// c
pub(super) const CLIPS: &[(&str, &[u8])] = &[];
/// h
pub(super) const HOLD: &[u8] = &[];
