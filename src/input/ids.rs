//! Ids: the grammar of track ids and user ids, in the catalogue and in listening files alike.
//!
//! Pure. Covered by the tests of [`crate::input::cleanse`].

/// Longest track id, in characters.
pub const MAX_TRACK_ID_CHARS: usize = 64;

/// Parses a positive integer of at most 63 bits. Leading zeros are ignored, whatever their number.
pub(crate) fn parse_user_id(field: &[u8]) -> Option<i64> {
    let zeros = field.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &field[zeros..];
    if digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?;
    (value > 0).then_some(value)
}

/// Parses a track id: at most 64 visible ASCII characters, or none.
pub(crate) fn parse_track_id(field: &[u8]) -> Option<&str> {
    if field.len() > MAX_TRACK_ID_CHARS || !field.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    std::str::from_utf8(field).ok()
}
