//! Certificates for links: an authority for one ensemble, and certificates that name its servers.
//!
//! A folder holds the authority: `ca.pem`, which every server needs, and `ca.key`, which none does. The authority's common name
//! is the ensemble's name, so the folder is all that [`issue`] needs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is io: files and the clock")]

use crate::peer::{NameError, PeerName, ServerId, check_ensemble_name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::pem::Pem;

/// The authority's certificate, in its folder.
pub const CA_FILE: &str = "ca.pem";
/// The authority's private key, in its folder. It belongs on no server.
pub const CA_KEY_FILE: &str = "ca.key";
/// How long an authority is valid, days: ten years.
pub const CA_DAYS: u64 = 3653;
/// How long a server's certificate is valid, days: two years.
pub const SERVER_DAYS: u64 = 731;
/// Valid from so long ago, for servers whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Only the owner may read it.
const MODE_SECRET: u32 = 0o600;
/// Anybody may read it.
const MODE_PUBLIC: u32 = 0o644;
/// Only the owner may look into it.
const MODE_FOLDER: u32 = 0o700;

/// Why a certificate is not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The ensemble's name.
    #[error(transparent)]
    Ensemble(#[from] NameError),
    /// There is an authority already; another would refuse all its certificates.
    #[error("{} is there already; remove it if no server uses it, or choose another folder", .0.display())]
    Exists(PathBuf),
    /// There is no authority.
    #[error("{} is missing; `warren certs init --dir {}` makes an authority", file.display(), folder.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The authority's folder.
        folder: PathBuf,
    },
    /// The file is not what [`init`] wrote.
    #[error("{}: {why}", path.display())]
    NotAuthority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file holds no certificate that can be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// 0 is no id.
    #[error("server ids are 1 to 255")]
    ServerId,
    /// A file.
    #[error("cannot {what} {}", path.display())]
    File {
        /// Read or write.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Making it failed.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Make an authority for an ensemble: `ca.pem` and `ca.key` (mode 0600) in `folder`, which is made if it is not there.
///
/// # Errors
/// When there is an authority already, or a file cannot be written.
pub fn init(folder: &Path, ensemble: &str) -> Result<(), CertsError> {
    check_ensemble_name(ensemble)?;
    let (cert_file, key_file) = (folder.join(CA_FILE), folder.join(CA_KEY_FILE));
    for file in [&cert_file, &key_file] {
        if file.symlink_metadata().is_ok() {
            return Err(CertsError::Exists(file.clone()));
        }
    }
    let made = fs::DirBuilder::new().recursive(true).mode(MODE_FOLDER).create(folder);
    made.map_err(|source| CertsError::File { what: "create", path: folder.to_owned(), source })?;
    let mut params = valid_for(CA_DAYS, SystemTime::now());
    params.distinguished_name = named(ensemble);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    // The key first: without its certificate it is nothing, and the other way round would be refused the next time.
    write(&key_file, key.serialize_pem().as_bytes(), MODE_SECRET)?;
    write(&cert_file, cert.pem().as_bytes(), MODE_PUBLIC)
}

/// A certificate and its private key, for one server of the authority's ensemble, as one PEM text. It is a secret:
/// [`write_secret`] keeps it as one.
///
/// # Errors
/// When `folder` holds no authority.
pub fn issue(folder: &Path, server_id: ServerId) -> Result<String, CertsError> {
    issue_at(folder, server_id, SystemTime::now())
}

/// As [`issue`], as if it were another day.
pub(crate) fn issue_at(folder: &Path, server_id: ServerId, now: SystemTime) -> Result<String, CertsError> {
    if server_id == 0 {
        return Err(CertsError::ServerId);
    }
    let cert_file = folder.join(CA_FILE);
    let (cert, key) = (read(folder, CA_FILE)?, read(folder, CA_KEY_FILE)?);
    let ensemble =
        ensemble_of(&cert).map_err(|why| CertsError::NotAuthority { path: cert_file.clone(), why })?;
    let key = KeyPair::from_pem(&key)
        .map_err(|e| CertsError::NotAuthority { path: folder.join(CA_KEY_FILE), why: e.to_string() })?;
    let issuer = Issuer::from_ca_cert_pem(&cert, key)
        .map_err(|e| CertsError::NotAuthority { path: cert_file, why: e.to_string() })?;

    let name = PeerName { ensemble, server: server_id };
    let mut params = valid_for(SERVER_DAYS, now);
    params.distinguished_name = named(&format!("{} server {server_id}", name.ensemble));
    params.subject_alt_names = vec![SanType::URI(name.to_string().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A server listens to some of its peers and dials the others.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    Ok(format!("{}{}", cert.pem(), key.serialize_pem()))
}

/// Write a secret to a file with mode 0600, whole or not at all; what was there before is replaced.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), CertsError> {
    write(path, text.as_bytes(), MODE_SECRET)
}

/// Until when the certificates of a PEM file are valid: the one of them that ends first.
///
/// # Errors
/// When it cannot be read, or holds none.
pub fn valid_until(path: &Path) -> Result<SystemTime, CertsError> {
    let fault = |why: String| CertsError::Unreadable { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|source| CertsError::File { what: "read", path: path.to_owned(), source })?;
    let mut first = None;
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|e| fault(e.to_string()))?;
        if pem.label == "CERTIFICATE" {
            let end = pem.parse_x509().map_err(|e| fault(e.to_string()))?.validity().not_after.timestamp();
            first = Some(first.map_or(end, |first: i64| first.min(end)));
        }
    }
    let end = first.ok_or_else(|| fault("there is no certificate in it".to_owned()))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or(0)))
}

fn valid_for(days: u64, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + DAY * u32::try_from(days).expect("days are few")).into();
    params
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Warren");
    name.push(DnType::CommonName, common);
    name
}

/// The ensemble that an authority is for.
fn ensemble_of(pem: &str) -> Result<String, String> {
    let first = Pem::iter_from_buffer(pem.as_bytes()).next().ok_or("there is no certificate in the file")?;
    let first = first.map_err(|e| e.to_string())?;
    let cert = first.parse_x509().map_err(|e| e.to_string())?;
    let name = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.ok_or("its common name is not an ensemble's name")?;
    check_ensemble_name(name).map_err(|e| format!("its common name: {e}"))?;
    Ok(name.to_owned())
}

fn read(folder: &Path, name: &str) -> Result<String, CertsError> {
    let path = folder.join(name);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(CertsError::Missing { file: path, folder: folder.to_owned() })
        }
        Err(source) => Err(CertsError::File { what: "read", path, source }),
    }
}

/// Beside its place first, so that nobody sees a half, nor a secret that others may read.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let fault = |source| CertsError::File { what: "write", path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| fault(io::ErrorKind::InvalidInput.into()))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = name.to_owned();
    beside.push(".new");
    let beside = folder.join(beside);
    let put = || {
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_end_of_a_file_is_its_first_certificates_end() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, cert) = (folder.path().join("ca"), folder.path().join("server.pem"));
        init(&ca, "east").unwrap();
        write_secret(&cert, &issue(&ca, 1).unwrap()).unwrap();
        let days = |path: &Path| {
            valid_until(path).unwrap().duration_since(SystemTime::now()).unwrap().as_secs() / 86_400
        };
        assert_eq!(days(&cert), SERVER_DAYS - 1);
        assert_eq!(days(&ca.join(CA_FILE)), CA_DAYS - 1);
        // A chain lasts as long as its weakest link.
        let both = fs::read_to_string(ca.join(CA_FILE)).unwrap() + &fs::read_to_string(&cert).unwrap();
        fs::write(&cert, both).unwrap();
        assert_eq!(days(&cert), SERVER_DAYS - 1);
        fs::write(&cert, "nothing").unwrap();
        assert!(valid_until(&cert).unwrap_err().to_string().contains("no certificate"));
        assert!(valid_until(&folder.path().join("none")).is_err());
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_a_secret() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("a/ca");
        init(&folder, "prod").unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(CA_KEY_FILE)), 0o600);
        assert_eq!(mode(&folder.join(CA_FILE)), 0o644);
        let before = fs::read(folder.join(CA_FILE)).unwrap();
        assert!(matches!(init(&folder, "prod"), Err(CertsError::Exists(_))));
        fs::remove_file(folder.join(CA_FILE)).unwrap();
        assert!(matches!(init(&folder, "prod"), Err(CertsError::Exists(_))), "the key alone counts, too");
        fs::write(folder.join(CA_FILE), before).unwrap();
        assert!(issue(&folder, 1).is_ok());
    }

    #[test]
    fn a_certificate_names_its_server_and_its_ensemble() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "prod").unwrap();
        let text = issue(folder.path(), 7).unwrap();
        assert!(text.contains("BEGIN CERTIFICATE") && text.contains("PRIVATE KEY"));
        let pem = Pem::iter_from_buffer(text.as_bytes()).next().unwrap().unwrap();
        let cert = pem.parse_x509().unwrap();
        let names = cert.subject_alternative_name().unwrap().unwrap();
        let uris: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(uris, ["URI(warren://prod/server/7)"]);
        let days = (cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp()) / 86_400;
        assert_eq!(days, i64::try_from(SERVER_DAYS).unwrap() + 1);

        let out = folder.path().join("7.pem");
        fs::write(&out, "older, and open to all").unwrap();
        write_secret(&out, &text).unwrap();
        assert_eq!(mode(&out), 0o600);
        assert_eq!(fs::read_to_string(&out).unwrap(), text);
        assert!(!folder.path().join("7.pem.new").exists());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(issue(folder.path(), 1), Err(CertsError::Missing { .. })));
        assert!(matches!(init(folder.path(), "not a name"), Err(CertsError::Ensemble(_))));
        init(folder.path(), "prod").unwrap();
        assert!(matches!(issue(folder.path(), 0), Err(CertsError::ServerId)));
        for broken in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(folder.path().join(CA_FILE), broken).unwrap();
            assert!(matches!(issue(folder.path(), 1), Err(CertsError::NotAuthority { .. })), "{broken:?}");
        }
        let leaf = {
            let other = tempfile::tempdir().unwrap();
            init(other.path(), "prod").unwrap();
            issue(other.path(), 1).unwrap()
        };
        fs::write(folder.path().join(CA_FILE), leaf).unwrap();
        assert!(
            matches!(issue(folder.path(), 1), Err(CertsError::NotAuthority { .. })),
            "a server is no authority"
        );
    }
}
