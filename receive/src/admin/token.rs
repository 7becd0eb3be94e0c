//! `weir node token`

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::Serialize;
use weir_hashring::{
    cluster::new_join_token,
    ids::{TokenId, UnixMillis},
    ring::{Command, JoinToken, RingState},
};

use super::{
    args::TokenCommand,
    change::{ChangePlan, Done},
    client::Client,
    console::Output,
    error::AdminError,
    names::listed,
    table::Table,
};

/// A token that was just made. Its text is shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewToken {
    /// Its public part.
    pub id: String,
    /// `<id>.<secret>`, for the file of a node that joins.
    pub token: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_unix_ms: i64,
    /// How many nodes may join with it.
    pub uses: u32,
}

/// All tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenList {
    /// In the order of their ids.
    pub tokens: Vec<TokenRow>,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// `valid`, `used up` or `ended`.
    pub state: &'static str,
    /// How many nodes may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// When it ends, in milliseconds since 1970.
    pub expires_unix_ms: i64,
}

/// `weir node token`
pub async fn token(
    client: &Client,
    output: &mut Output<'_>,
    command: TokenCommand,
) -> Result<(), AdminError> {
    match command {
        TokenCommand::Create { ttl, uses } => {
            let picture = client.picture().await?;
            let (token, command) = new_token(ttl, uses)?;
            client.propose(&picture, &command, false).await?;
            output.report(&token);
        }
        TokenCommand::List => output.report(&list(&client.ring().await?, now())),
        TokenCommand::Revoke { id, consent } => {
            let picture = client.picture().await?;
            let state = client.ring().await?;
            let id = known_token(&state, &id)?;
            let plan = ChangePlan {
                change: format!("token {id} is worthless"),
                steps: vec!["no node joins with it any more; those that did stay".to_owned()],
                warnings: Vec::new(),
                forecast: None,
            };
            if output.confirm(&plan, consent)? {
                let applied = client.propose(&picture, &Command::RevokeToken { id }, false).await?;
                output.report(&Done::new(plan.change, applied));
            }
        }
    }
    Ok(())
}

/// A token, and the command that makes it known.
fn new_token(ttl: Duration, uses: u32) -> Result<(NewToken, Command), AdminError> {
    let now = now();
    let made = new_join_token(ttl, uses, now);
    let (token, command) = made.map_err(|error| AdminError::NotPossible(error.to_string()))?;
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let expires_unix_ms = now.0.saturating_add(ttl_ms);
    Ok((NewToken { id: token.id().to_string(), token: token.reveal(), expires_unix_ms, uses }, command))
}

fn list(state: &RingState, now: UnixMillis) -> TokenList {
    let row = |(id, token): (&TokenId, &JoinToken)| TokenRow {
        id: id.to_string(),
        state: match token {
            _ if token.expires <= now => "ended",
            _ if token.used >= token.uses => "used up",
            _ => "valid",
        },
        uses: token.uses,
        used: token.used,
        expires_unix_ms: token.expires.0,
    };
    TokenList { tokens: state.tokens().iter().map(row).collect() }
}

/// Whoever gives all of a token is not told that half of it was enough.
fn known_token(state: &RingState, text: &str) -> Result<TokenId, AdminError> {
    let id = TokenId::from(text.split_once('.').map_or(text, |(id, _)| id));
    if state.tokens().contains_key(&id) {
        return Ok(id);
    }
    let known = listed(state.tokens().keys().map(ToString::to_string));
    Err(AdminError::NotPossible(format!("there is no token {:?}; there are: {known}", id.as_str())))
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn date(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).and_then(|time| time.round(jiff::Unit::Second));
    time.map_or_else(|_| format!("{unix_ms} ms"), |time| time.to_string())
}

impl fmt::Display for NewToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, expires_unix_ms, uses, .. } = self;
        let nodes = if *uses == 1 { "one node".to_owned() } else { format!("{uses} nodes") };
        write!(out, "{token}\n\nfor {nodes} until {}; it is not shown again", date(*expires_unix_ms))
    }
}

impl fmt::Display for TokenList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["ID", "STATE", ">USED", ">OF", "ENDS"]);
        for token in &self.tokens {
            table.row([
                token.id.clone(),
                token.state.to_owned(),
                token.used.to_string(),
                token.uses.to_string(),
                date(token.expires_unix_ms),
            ]);
        }
        write!(out, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use weir_hashring::cluster::TokenText;

    use super::{super::samples::ring, *};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn a_new_token_is_what_nodes_join_with() {
        let (token, command) = new_token(Duration::from_secs(60), 3).expect("it makes sense");
        let text = TokenText::parse(&token.token).expect("nodes understand it");
        let Command::AddToken { id, expires, uses, .. } = command else { panic!("{command:?}") };
        assert_eq!((id.to_string(), expires.0, uses), (token.id.clone(), token.expires_unix_ms, 3));
        assert_eq!((text.id(), &token.uses), (&id, &3));
        assert!(token.to_string().contains("for 3 nodes until "), "{token}");
        let error = new_token(Duration::from_secs(60), 0).expect_err("nobody could join").to_string();
        assert!(!error.is_empty());
    }

    #[test]
    fn tokens_are_listed_without_secrets() {
        let mut state = ring(3);
        for (id, ttl, uses) in [(1, 60, 2), (2, 0, 2), (3, 60, 0)] {
            let id = TokenId(format!("{id:016x}"));
            let command =
                Command::AddToken { id, sha256: [1; 32], expires: UnixMillis(NOW.0 + ttl * 1000), uses };
            state.apply(&command).expect("the token is new");
        }
        let expected = "\
ID                STATE    USED  OF  ENDS
0000000000000001  valid       0   2  2023-11-14T22:14:20Z
0000000000000002  ended       0   2  2023-11-14T22:13:20Z
0000000000000003  used up     0   0  2023-11-14T22:14:20Z
";
        assert_eq!(list(&state, NOW).to_string(), expected);
        let known = |text| known_token(&state, text).map(|id| id.0).map_err(|error| error.to_string());
        assert_eq!(known("0000000000000002"), Ok("0000000000000002".to_owned()));
        assert_eq!(known("0000000000000002.secret"), Ok("0000000000000002".to_owned()));
        let error = known("4.secret").expect_err("there is none");
        assert!(error.starts_with("there is no token \"4\"; there are: 0000000000000001, "), "{error}");
    }
}
