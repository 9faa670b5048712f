//! Who may steer the broker, or be a node of its cluster: holders of the control token. It is a
//! file that may change under us (a Secret mounted in a pod): it is looked at again at most once a
//! second, whenever a caller brings another token than ours, and whenever we show it to a peer.
//! Never logs a token.

use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_peers::Credential;
use millrace_types::{ErrorCode, Refusal};
use tracing::warn;

/// How long a token that was read counts without a look at its file: one `stat` a second is nothing
/// and a rotation takes effect as good as at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A token file is a line of text; more is something else.
const TOKEN_BYTES_MAX: u64 = 4096;
const SCHEME: &str = "Bearer ";

/// Decides whether a caller of the control port may go on.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Standalone on loopback: whoever reaches the port may.
    Open,
    /// Who brings the token may.
    Token(TokenFile),
}

/// The token's file and what it held when it was last read.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    token: Vec<u8>,
    identity: Identity,
    looked: Instant,
}

/// Tells one content of the file from the next: a Secret's update swaps a link, an editor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Cannot be read.
    #[error("cannot read control token file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Empty, or far too long.
    #[error("control token file {path} holds no token: want one line of 1 to 4096 bytes")]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

impl Guard {
    /// Decides on the value of a call's `authorization` header.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the token is missing or another one.
    pub(crate) fn check(&self, authorization: Option<&[u8]>) -> Result<(), Refusal> {
        let Self::Token(file) = self else {
            return Ok(());
        };
        let given = authorization
            .and_then(|value| value.strip_prefix(SCHEME.as_bytes()))
            .ok_or_else(|| refusal("the control token is missing: want `Bearer TOKEN`"))?;
        if file.matches(given) {
            Ok(())
        } else {
            Err(refusal("the control token is another one"))
        }
    }
}

/// The nodes of a cluster know each other by the same token.
impl Credential for Guard {
    fn token(&self) -> Option<Vec<u8>> {
        match self {
            Self::Open => None,
            Self::Token(file) => Some(file.token()),
        }
    }

    fn accepts(&self, token: Option<&[u8]>) -> bool {
        match self {
            Self::Open => true,
            Self::Token(file) => token.is_some_and(|given| file.matches(given)),
        }
    }
}

impl TokenFile {
    /// Reads the token for the first time.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub(crate) fn open(path: PathBuf) -> Result<Self, TokenError> {
        let seen = read(&path)?;
        Ok(Self {
            path,
            seen: Mutex::new(seen),
        })
    }

    /// The token as it is now.
    fn token(&self) -> Vec<u8> {
        // A connection is rarely made, and a refusal of one lasts: better a look too many.
        let mut seen = self.lock();
        self.look_again(&mut seen);
        seen.token.clone()
    }

    fn matches(&self, given: &[u8]) -> bool {
        let mut seen = self.lock();
        if seen.looked.elapsed() >= LOOK_EVERY {
            self.look_again(&mut seen);
        }
        if equal(&seen.token, given) {
            return true;
        }
        self.look_again(&mut seen);
        equal(&seen.token, given)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A poisoned lock still holds a whole token: it is replaced in one assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file if it is another one than was read; keeps the old token if that fails, since
    /// a file that is half replaced must not lock the operator out.
    fn look_again(&self, seen: &mut Seen) {
        seen.looked = Instant::now();
        let unchanged = identity(&self.path).is_ok_and(|now| now == seen.identity);
        if unchanged {
            return;
        }
        match read(&self.path) {
            Ok(fresh) => *seen = fresh,
            Err(error) => warn!(
                error = crate::report(&error),
                "control token file unreadable, keeping the token read before"
            ),
        }
    }
}

fn read(path: &Path) -> Result<Seen, TokenError> {
    let fail = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    // The identity is taken first: a change in between is then seen by the next look.
    let identity = identity(path).map_err(fail)?;
    let empty = || TokenError::NoToken {
        path: path.to_owned(),
    };
    if identity.length > TOKEN_BYTES_MAX {
        return Err(empty());
    }
    let token = fs::read(path).map_err(fail)?.trim_ascii().to_vec();
    if token.is_empty() {
        return Err(empty());
    }
    Ok(Seen {
        token,
        identity,
        looked: Instant::now(),
    })
}

fn identity(path: &Path) -> io::Result<Identity> {
    let meta = fs::metadata(path)?;
    Ok(Identity {
        device: meta.dev(),
        inode: meta.ino(),
        length: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// Takes as long for a token that is wrong at its first byte as for one wrong at its last; only the
/// length, which is no secret, may show.
fn equal(ours: &[u8], given: &[u8]) -> bool {
    let differing = ours
        .iter()
        .zip(given)
        .fold(0_u8, |bits, (a, b)| black_box(bits | (a ^ b)));
    ours.len() == given.len() && differing == 0
}

fn refusal(message: &str) -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(path: &Path) -> Guard {
        Guard::Token(TokenFile::open(path.to_owned()).unwrap())
    }

    #[test]
    fn only_the_token_opens_the_port() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        let guard = guard(&path);
        guard.check(Some(b"Bearer s3cret")).unwrap();
        for wrong in [
            None,
            Some(b"Bearer ".as_slice()),
            Some(b"Bearer s3cres"),
            Some(b"Bearer s3crets"),
            Some(b"s3cret"),
            Some(b"Basic s3cret"),
        ] {
            let refusal = guard.check(wrong).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::Unauthenticated);
        }
    }

    #[test]
    fn a_rotated_token_counts_at_once_and_the_old_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first").unwrap();
        let guard = guard(&path);
        fs::write(dir.path().join("next"), "second").unwrap();
        fs::rename(dir.path().join("next"), &path).unwrap();
        guard.check(Some(b"Bearer second")).unwrap();
        guard.check(Some(b"Bearer first")).unwrap_err();
    }

    #[test]
    fn peers_are_shown_the_token_of_now_and_have_to_show_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let guard = guard(&path);
        assert_eq!(guard.token().as_deref(), Some(b"first".as_slice()));
        fs::write(dir.path().join("next"), "second").unwrap();
        fs::rename(dir.path().join("next"), &path).unwrap();
        assert_eq!(guard.token().as_deref(), Some(b"second".as_slice()));
        assert!(guard.accepts(Some(b"second")));
        for wrong in [None, Some(b"".as_slice()), Some(b"first"), Some(b"seconds")] {
            assert!(!guard.accepts(wrong));
        }
        assert_eq!(Guard::Open.token(), None);
        assert!(Guard::Open.accepts(None));
    }

    #[test]
    fn a_token_file_that_goes_away_keeps_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "first").unwrap();
        let guard = guard(&path);
        fs::remove_file(&path).unwrap();
        guard.check(Some(b"Bearer wrong")).unwrap_err();
        guard.check(Some(b"Bearer first")).unwrap();
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "\n").unwrap();
        let error = TokenFile::open(path).unwrap_err();
        assert!(matches!(error, TokenError::NoToken { .. }));
    }
}
