//! CRC-32C (Castagnoli), the only checksum of the on-disk formats.

/// Checksum of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// Checksum of what `crc` covers followed by `data`.
pub fn crc32c_append(crc: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, data)
}
