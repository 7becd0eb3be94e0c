//! The tokens that let nodes join: `<id>.<secret>` for whoever has it, the id and a hash for the ring.
//!
//! The secret is in nobody's log and nobody's state. A secret is 32 random bytes, so that its hash
//! tells nothing and needs no salt.

use std::{fmt, time::Duration};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    ids::{TokenId, UnixMillis},
    ring::Command,
};

/// The longest text of a token in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// No token is valid for longer, which keeps sums of times in their range.
const TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The text of a token. It is a secret: what is printed of it for debugging is its id.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    id: TokenId,
    secret: String,
}

/// A text that is no token. It does not say what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the join token is not understood: it must be an id, a dot and a secret, {TEXT_BYTES_MAX} bytes at most"
)]
pub struct BadTokenText;

/// Why no token is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRequestFault {
    /// It would be valid for no time, or for longer than anybody thinks ahead.
    #[error("a join token is valid for more than nothing and for ten years at most, not for {0:?}")]
    Ttl(Duration),
    /// Nobody could join with it.
    #[error("a join token is for one node at least")]
    Uses,
}

impl TokenText {
    /// Reads a token as it was handed out; white space around it does not matter.
    pub fn parse(text: &str) -> Result<TokenText, BadTokenText> {
        let text = text.trim();
        let (id, secret) = text.split_once('.').ok_or(BadTokenText)?;
        if id.is_empty() || secret.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(BadTokenText);
        }
        Ok(TokenText { id: TokenId::from(id), secret: secret.to_owned() })
    }

    /// Its public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token, secret and all, for whoever shall join with it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The hash of its secret part.
    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }

    /// True if its secret has this hash. The time it takes says nothing about the secret.
    pub(super) fn has_hash(&self, sha256: &[u8; 32]) -> bool {
        self.sha256().ct_eq(sha256).into()
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}.…)", self.id)
    }
}

/// Makes up a token with which `uses` nodes may join within `ttl` from `now`, and the command that makes
/// it known to the cluster.
///
/// # Errors
/// A time or number that makes no sense.
pub fn new_join_token(
    ttl: Duration,
    uses: u32,
    now: UnixMillis,
) -> Result<(TokenText, Command), TokenRequestFault> {
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(TokenRequestFault::Ttl(ttl));
    }
    if uses == 0 {
        return Err(TokenRequestFault::Uses);
    }
    let id = TokenId(format!("{:016x}", rand::random::<u64>()));
    let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let token = TokenText { id: id.clone(), secret };
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let expires = UnixMillis(now.0.saturating_add(ttl_ms));
    let command = Command::AddToken { id, sha256: token.sha256(), expires, uses };
    Ok((token, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_tokens() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = TokenText::parse(text).ok();
            let found = found.as_ref().map(|token| (token.id.as_str(), token.secret.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("a.b", Some(("a", "b")));
        check(" a.b.c\n", Some(("a", "b.c")));
        check("ab", None);
        check("a.", None);
        check(".b", None);
        check("", None);
        check(&format!("a.{}", "x".repeat(TEXT_BYTES_MAX - 2)), Some(("a", &"x".repeat(TEXT_BYTES_MAX - 2))));
        check(&format!("a.{}", "x".repeat(TEXT_BYTES_MAX - 1)), None);
        assert!(!BadTokenText.to_string().is_empty());
    }

    #[test]
    fn a_new_token_fits_what_the_ring_knows_of_it() {
        let now = UnixMillis(1000);
        let (token, command) = new_join_token(Duration::from_secs(5), 3, now).expect("it makes sense");
        let Command::AddToken { id, sha256, expires, uses } = command else { panic!("{command:?}") };
        assert_eq!((&id, expires, uses), (token.id(), UnixMillis(6000), 3));
        assert_eq!(TokenText::parse(&token.reveal()), Ok(token.clone()));
        assert!(token.has_hash(&sha256));
        let (other, _) = new_join_token(Duration::from_secs(5), 3, now).expect("it makes sense");
        assert!(!other.has_hash(&sha256) && other.id() != token.id());
        assert!(!format!("{token:?}").contains(&token.secret));

        let refused = |ttl, uses| new_join_token(ttl, uses, now).err();
        assert_eq!(refused(Duration::ZERO, 1), Some(TokenRequestFault::Ttl(Duration::ZERO)));
        let long = TTL_MAX + Duration::from_secs(1);
        assert_eq!(refused(long, 1), Some(TokenRequestFault::Ttl(long)));
        assert_eq!(refused(TTL_MAX, 0), Some(TokenRequestFault::Uses));
        assert_eq!(refused(TTL_MAX, 1), None);
    }

    /// Frozen: whoever keeps a token joins with it after an upgrade too.
    #[test]
    fn the_hash_is_sha256_of_the_secret() {
        let token = TokenText::parse("id.secret").expect("it is a token");
        let hash = token.sha256().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hash, "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
    }
}
