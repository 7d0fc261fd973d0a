//! Who is at the other end: certificates, read and judged. Both ends judge alike.
//!
//! A certificate must lead to the ensemble's authority, be valid now, and name one server of this ensemble. Every handshake
//! has a [`Judge`] of its own, so that the verdict and its reason are known by connection. Sessions are not resumed: a
//! resumed one would not be judged.

use super::Hold;
use super::refusal::{Fault, RefusalReason};
use crate::peer::{PeerName, ServerId};
use parking_lot::{Mutex, RwLock};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, KeyUsage};

/// What a connection is for. Each is another protocol inside TLS; another number speaks otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is the link.
    Link,
    /// One snapshot, from whoever dials.
    Snapshot,
}

impl Purpose {
    pub(super) const fn alpn(self) -> &'static [u8] {
        match self {
            Purpose::Link => b"warren/1",
            Purpose::Snapshot => b"warren-snapshot/1",
        }
    }
}

/// The longest PEM file that is read, bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Certificates in one file, at most: a chain, or authorities old and new.
const CERTIFICATES_MAX: usize = 16;
/// What the key of stateless resets is made for; the same key in the next run, so that a restarted server can tell its
/// peers at once that their connections are gone.
const RESET_PURPOSE: &[u8] = b"warren stateless reset";

/// A server's certificate and the authorities it trusts, as PEM.
#[derive(Clone)]
pub struct TlsFiles {
    /// The server's certificate, what leads from there to the authority if anything, and the private key.
    pub cert_pem: Vec<u8>,
    /// The authority's certificate; several while one replaces the other.
    pub ca_pem: Vec<u8>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsFiles")
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no PEM, or not of the kind that is needed.
    #[error("{what}: {why}")]
    Pem {
        /// Certificate, key or authority.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Key and certificate do not belong together, or the key is of a kind that is not known.
    #[error("the private key cannot be used with the certificate: {0}")]
    Key(String),
    /// Our own certificate would be refused by every peer.
    #[error(
        "the certificate of this server would be refused by its peers: {why}; \
         `warren certs issue --dir CA --server-id {server}` makes one that is not"
    )]
    OwnCertificate {
        /// The configured id.
        server: ServerId,
        /// What a peer would say.
        why: String,
    },
}

impl TlsFiles {
    /// Read both files; each at most 1 MiB.
    pub fn read(cert: &Path, ca: &Path) -> Result<TlsFiles, TlsError> {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes))
                .and_then(|_| {
                    let fits = bytes.len() as u64 <= PEM_BYTES_MAX;
                    fits.then_some(()).ok_or_else(|| std::io::Error::other("longer than any certificate"))
                })
                .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
            Ok(bytes)
        };
        Ok(TlsFiles { cert_pem: read(cert)?, ca_pem: read(ca)? })
    }
}

/// Whose links these are.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) ensemble: String,
    pub(super) own: ServerId,
    /// They come and go, see [`super::Links::set_peers`].
    pub(super) peers: RwLock<BTreeMap<ServerId, Hold>>,
}

/// Whom a handshake may end with.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The server that was dialled.
    Dialled(ServerId),
    /// A configured server. One with a lower id does not dial here for a link that is held [`Hold::Always`].
    Dialler(Purpose),
    /// This server, as its peers would see it.
    Own,
}

/// What this server shows, and whom it trusts; exchanged as a whole by a reload.
pub(super) struct Identity {
    certified: Arc<CertifiedKey>,
    trusted: Vec<TrustAnchor<'static>>,
    provider: Arc<CryptoProvider>,
    expires: SystemTime,
    reset_key: Arc<ring::hmac::Key>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Identity {
    /// Parse, and judge our own certificate as a peer would: better now than by every peer.
    pub(super) fn new(files: &TlsFiles, names: &Names) -> Result<Identity, TlsError> {
        let chain = certificates("the certificate of this server", &files.cert_pem)?;
        let authorities = certificates("the certificate of the authority", &files.ca_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&files.cert_pem).map_err(|e| TlsError::Pem {
            what: "the private key of this server",
            why: format!("{e}; it belongs into the same file as the certificate"),
        })?;
        let mut trusted = Vec::new();
        for authority in &authorities {
            let anchor = webpki::anchor_from_trusted_cert(authority).map_err(|e| TlsError::Pem {
                what: "the certificate of the authority",
                why: e.to_string(),
            })?;
            trusted.push(anchor.to_owned());
        }
        let secret = ring::digest::digest(&ring::digest::SHA256, key.secret_der());
        let derived =
            ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_ref()), RESET_PURPOSE);
        let provider = Arc::new(provider::default_provider());
        let expires = not_after(&chain[0])?;
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|e| TlsError::Key(e.to_string()))?;
        let identity = Identity {
            certified: Arc::new(certified),
            trusted,
            provider,
            expires,
            reset_key: Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, derived.as_ref())),
        };
        let own = &identity.certified.cert;
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            identity
                .judge(own, names, Expected::Own, usage, UnixTime::now())
                .map_err(|fault| TlsError::OwnCertificate { server: names.own, why: fault.detail })?;
        }
        Ok(identity)
    }

    /// Until when our certificate is valid.
    pub(super) fn expires(&self) -> SystemTime {
        self.expires
    }

    pub(super) fn reset_key(&self) -> Arc<ring::hmac::Key> {
        self.reset_key.clone()
    }

    /// Would this certificate still be let in?
    pub(super) fn still_trusts(
        &self,
        chain: &[CertificateDer<'_>],
        names: &Names,
        server: ServerId,
    ) -> Result<(), Fault> {
        let usage = if server > names.own { KeyUsage::client_auth() } else { KeyUsage::server_auth() };
        self.judge(chain, names, Expected::Dialled(server), usage, UnixTime::now()).map(|_| ())
    }

    /// Whom does this certificate name, and may that be?
    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        names: &Names,
        expected: Expected,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<ServerId, Fault> {
        let (first, rest) = chain
            .split_first()
            .ok_or_else(|| Fault::new(RefusalReason::NoCertificate, "it showed no certificate"))?;
        let cert = EndEntityCert::try_from(first).map_err(fault)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        cert.verify_for_usage(algorithms, &self.trusted, rest, now, usage, None, None).map_err(fault)?;

        let mut meant = cert.valid_uri_names().filter(|uri| PeerName::is_meant(uri));
        let (uri, second) = (meant.next(), meant.next());
        let name = match (uri.map(PeerName::parse), second) {
            (Some(Ok(name)), None) => name,
            (Some(Err(e)), _) => return Err(Fault::new(RefusalReason::NoName, e.to_string())),
            (Some(Ok(_)), Some(_)) => {
                return Err(Fault::new(RefusalReason::NoName, "its certificate names several servers"));
            }
            (None, _) => {
                let detail = "its certificate has no URI warren://ENSEMBLE/server/ID among its alternative names; \
                              `warren certs issue` makes one that has";
                return Err(Fault::new(RefusalReason::NoName, detail));
            }
        };
        let PeerName { ensemble, server } = name;
        if ensemble != names.ensemble {
            let detail = format!("it is of the ensemble {ensemble:?}, and this is {:?}", names.ensemble);
            return Err(Fault::new(RefusalReason::OtherEnsemble, detail));
        }
        let own = names.own;
        let hold = names.peers.read().get(&server).copied();
        let (reason, detail) = match expected {
            Expected::Own if server == own => return Ok(server),
            Expected::Own => (
                RefusalReason::WrongServer,
                format!("it is the certificate of server {server}, and this is server {own}"),
            ),
            _ if server == own => {
                (RefusalReason::OwnId, format!("it has the certificate of server {own} itself"))
            }
            Expected::Dialled(wanted) if server == wanted => return Ok(server),
            Expected::Dialled(wanted) => {
                (RefusalReason::WrongServer, format!("server {server} is where server {wanted} should be"))
            }
            Expected::Dialler(_) if hold.is_none() => {
                (RefusalReason::UnknownServer, format!("server {server} is not configured here"))
            }
            Expected::Dialler(Purpose::Link) if server < own && hold == Some(Hold::Always) => {
                (RefusalReason::WrongDirection, format!("server {server} dialled; server {own} dials it"))
            }
            Expected::Dialler(_) => return Ok(server),
        };
        Err(Fault::new(reason, detail))
    }
}

/// The crypto of a connection to `server`, and where its verdict will be.
pub(super) fn dialling(
    identity: &Arc<Identity>,
    names: &Arc<Names>,
    server: ServerId,
    purpose: Purpose,
) -> (rustls::ClientConfig, Verdict) {
    let (judge, verdict) = Judge::new(identity, names, Expected::Dialled(server));
    let mut config = rustls::ClientConfig::builder_with_provider(identity.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(judge)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    (config, verdict)
}

/// The crypto of a connection that somebody dialled, and where its verdict will be.
pub(super) fn listening(
    identity: &Arc<Identity>,
    names: &Arc<Names>,
    purpose: Purpose,
) -> (rustls::ServerConfig, Verdict) {
    let (judge, verdict) = Judge::new(identity, names, Expected::Dialler(purpose));
    let mut config = rustls::ServerConfig::builder_with_provider(identity.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(judge)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    (config, verdict)
}

/// What the judge of one handshake said; nothing while it was not asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<Result<ServerId, Fault>>>>);

impl Verdict {
    pub(super) fn take(&self) -> Option<Result<ServerId, Fault>> {
        self.0.lock().take()
    }
}

/// Asked by rustls in one handshake.
#[derive(Debug)]
struct Judge {
    identity: Arc<Identity>,
    names: Arc<Names>,
    expected: Expected,
    verdict: Verdict,
}

impl Judge {
    fn new(identity: &Arc<Identity>, names: &Arc<Names>, expected: Expected) -> (Arc<Judge>, Verdict) {
        let verdict = Verdict::default();
        let judge =
            Judge { identity: identity.clone(), names: names.clone(), expected, verdict: verdict.clone() };
        (Arc::new(judge), verdict)
    }

    fn give(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(first).chain(rest).map(|cert| CertificateDer::from(cert.as_ref())).collect();
        let verdict = self.identity.judge(&chain, &self.names, self.expected, usage, now);
        let answer = match &verdict {
            Ok(_) => Ok(()),
            Err(fault) => Err(alert(fault)),
        };
        *self.verdict.0.lock() = Some(verdict);
        answer
    }

    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.identity.provider.signature_verification_algorithms
    }

    /// TLS 1.3 alone is offered.
    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }
}

/// What the other end is told: the alert that fits, or the words where none does.
fn alert(fault: &Fault) -> Error {
    match fault.reason {
        RefusalReason::Expired => CertificateError::Expired.into(),
        RefusalReason::NotYetValid => CertificateError::NotValidYet.into(),
        RefusalReason::UnknownAuthority => CertificateError::UnknownIssuer.into(),
        RefusalReason::BadCertificate => CertificateError::BadEncoding.into(),
        // The alert that is no one's but this one's: whoever was removed learns of it so.
        RefusalReason::UnknownServer => CertificateError::ApplicationVerificationFailure.into(),
        _ => Error::General(fault.detail.clone()),
    }
}

fn fault(e: webpki::Error) -> Fault {
    use webpki::Error as E;
    let (reason, detail) = match e {
        E::CertExpired { not_after, .. } => {
            let days = UnixTime::now().as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            (RefusalReason::Expired, format!("its certificate expired {days} days ago"))
        }
        E::CertNotValidYet { .. } => (
            RefusalReason::NotYetValid,
            "its certificate is not valid yet: is the clock right, here and there?".to_owned(),
        ),
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => (
            RefusalReason::UnknownAuthority,
            "its certificate is not of this ensemble's authority".to_owned(),
        ),
        other => (RefusalReason::BadCertificate, format!("its certificate cannot be used: {other}")),
    };
    Fault::new(reason, detail)
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.give(first, rest, KeyUsage::server_auth(), now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Judge::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.give(first, rest, KeyUsage::client_auth(), now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Judge::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

/// All certificates of a PEM text; one at least.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |why: String| TlsError::Pem { what, why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|e| fault(e.to_string()))?;
    match found.len() {
        0 => Err(fault("there is no CERTIFICATE in the PEM file".to_owned())),
        n if n > CERTIFICATES_MAX => {
            Err(fault(format!("there are more than {CERTIFICATES_MAX} in the PEM file")))
        }
        _ => Ok(found),
    }
}

/// The last moment of a certificate.
fn not_after(cert: &CertificateDer<'_>) -> Result<SystemTime, TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert)
        .map_err(|e| TlsError::Pem { what: "the certificate of this server", why: e.to_string() })?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
