//! Names of tenants. A name is a directory below `--tsdb.path` and a label value, so it is judged
//! once, at the border, and carried as a type from there on.

use std::{fmt, sync::Arc};

/// Most bytes a tenant name may have. File systems take 255 for a file name; the rest is room for
/// names made from it.
pub const TENANT_NAME_BYTES_MAX: usize = 150;

/// A tenant's name that was found valid: a plain path element, not empty, not `.`, `..` or
/// `lost+found`, without separators and control characters, at most [`TENANT_NAME_BYTES_MAX`]
/// bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(Arc<str>);

/// Why a tenant name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantName {
    /// No character at all.
    #[error("it is empty")]
    Empty,
    /// Longer than [`TENANT_NAME_BYTES_MAX`].
    #[error("it has {0} bytes, {TENANT_NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// `.`, `..` or `lost+found`.
    #[error("it is reserved")]
    Reserved,
    /// Contains `/` or `\`.
    #[error("it contains a path separator")]
    Separator,
    /// Contains a control character.
    #[error("it contains a control character")]
    Control,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
}

impl TenantName {
    /// Judges `name`.
    pub fn new(name: &str) -> Result<Self, InvalidTenantName> {
        if name.is_empty() {
            return Err(InvalidTenantName::Empty);
        }
        if name.len() > TENANT_NAME_BYTES_MAX {
            return Err(InvalidTenantName::TooLong(name.len()));
        }
        if matches!(name, "." | ".." | "lost+found") {
            return Err(InvalidTenantName::Reserved);
        }
        if name.contains(['/', '\\']) {
            return Err(InvalidTenantName::Separator);
        }
        if name.contains(char::is_control) {
            return Err(InvalidTenantName::Control);
        }
        Ok(Self(name.into()))
    }

    /// Judges bytes as they came in a header.
    pub fn from_bytes(name: &[u8]) -> Result<Self, InvalidTenantName> {
        Self::new(std::str::from_utf8(name).map_err(|_| InvalidTenantName::NotUtf8)?)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

/// Maps keyed by name are asked with a `&str`.
impl std::borrow::Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn judges_names() {
        use InvalidTenantName::{Control, Empty, NotUtf8, Reserved, Separator, TooLong};
        let longest = "x".repeat(TENANT_NAME_BYTES_MAX);
        let too_long = "x".repeat(TENANT_NAME_BYTES_MAX + 1);
        let wide = "ü".repeat(TENANT_NAME_BYTES_MAX / 2 + 1);
        let cases: &[(&[u8], Result<(), InvalidTenantName>)] = &[
            (b"default-tenant", Ok(())),
            (b"a", Ok(())),
            (b"...", Ok(())),
            (b".hidden", Ok(())),
            (b"team a|b:c*", Ok(())),
            ("täglich".as_bytes(), Ok(())),
            (longest.as_bytes(), Ok(())),
            (b"", Err(Empty)),
            (b".", Err(Reserved)),
            (b"..", Err(Reserved)),
            (b"lost+found", Err(Reserved)),
            (b"/", Err(Separator)),
            (b"a/b", Err(Separator)),
            (b"../a", Err(Separator)),
            (b"a\\b", Err(Separator)),
            (b"a\0b", Err(Control)),
            (b"a\nb", Err(Control)),
            (b"\x7f", Err(Control)),
            ("a\u{85}".as_bytes(), Err(Control)),
            (b"\xff", Err(NotUtf8)),
            (too_long.as_bytes(), Err(TooLong(TENANT_NAME_BYTES_MAX + 1))),
            (wide.as_bytes(), Err(TooLong(TENANT_NAME_BYTES_MAX + 2))),
        ];
        for (name, verdict) in cases {
            let text = String::from_utf8_lossy(name);
            assert_eq!(TenantName::from_bytes(name).map(drop), *verdict, "{text:?}");
        }
    }

    #[test]
    fn a_valid_name_is_its_own_base_name() {
        proptest::proptest!(|(name in "[./\\\\a\u{0}+ é]{0,6}")| {
            if let Ok(valid) = TenantName::new(&name) {
                assert_eq!(valid.as_str(), name);
                let path = Path::new("base").join(&name);
                assert_eq!(path.file_name().and_then(|own| own.to_str()), Some(name.as_str()));
                assert_eq!(path.parent(), Some(Path::new("base")));
            }
        });
    }
}
