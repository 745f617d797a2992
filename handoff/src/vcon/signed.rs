//! The signed form of a vCon (draft-ietf-vcon-vcon-core-03): a JWS in the general JSON
//! serialisation (RFC 7515, section 7.2.1) by Ed25519 (`EdDSA`, RFC 8037), with the certificates
//! that a receiver finds the signer by. The algorithm stands in the protected header alone:
//! RFC 7515 wants both headers disjoint. No certificate is judged here; whom to trust is the
//! receiver's to say.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// What a private key of Ed25519 begins with as PKCS #8 (RFC 8410, section 7); 32 bytes follow.
const PRIVATE_KEY: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What a public key of Ed25519 begins with in a certificate (RFC 8410, section 4); 32 bytes
/// follow.
const PUBLIC_KEY: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest file: a key and a chain of some certificates are a few kilobytes.
pub const PEM_LEN_MAX: usize = 64 * 1024;
/// Most certificates of a chain; real ones have two or three.
const CHAIN_MAX: usize = 8;

/// Why a file cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSigner {
    /// Not PEM, or too long.
    #[error("it is not PEM of at most 64 KiB")]
    NotPem,
    /// No private key, or several.
    #[error("it must hold one private key")]
    NoKey,
    /// Another algorithm or encoding.
    #[error("its private key is not Ed25519 as PKCS #8, as `openssl genpkey -algorithm ed25519` makes one")]
    NotEd25519,
    /// No certificate, or too many.
    #[error("it must hold the key's certificate, and at most seven behind it")]
    NoCertificate,
    /// The first certificate is somebody else's.
    #[error("its first certificate is not that of its private key")]
    NotItsCertificate,
}

/// A private key, and the certificates from its own towards a root.
pub struct Signer {
    key: SigningKey,
    chain: Vec<String>,
}

impl core::fmt::Debug for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Signer([redacted])")
    }
}

impl Signer {
    /// A private key and its certificates from one PEM file, the key before, between or behind
    /// them.
    pub fn from_pem(text: &str) -> Result<Self, BadSigner> {
        if text.len() > PEM_LEN_MAX {
            return Err(BadSigner::NotPem);
        }
        let (mut keys, mut chain) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((label, body, behind)) = block(rest)? {
            match label {
                "CERTIFICATE" => chain.push(body),
                _ if label.ends_with("PRIVATE KEY") => keys.push(body),
                _ => {}
            }
            rest = behind;
        }
        let [key] = keys.as_slice() else { return Err(BadSigner::NoKey) };
        let seed = key.strip_prefix(&PRIVATE_KEY).ok_or(BadSigner::NotEd25519)?;
        let key = SigningKey::from_bytes(&seed.try_into().map_err(|_| BadSigner::NotEd25519)?);
        let own = chain.first().filter(|_| chain.len() <= CHAIN_MAX).ok_or(BadSigner::NoCertificate)?;
        let public = [PUBLIC_KEY.as_slice(), key.verifying_key().as_bytes()].concat();
        if !own.windows(public.len()).any(|window| window == public) {
            return Err(BadSigner::NotItsCertificate);
        }
        Ok(Self { key, chain: chain.iter().map(|der| STANDARD.encode(der)).collect() })
    }

    /// The signed form of `vcon`. It was last changed when it was made, and is signed then.
    pub fn sign(&self, mut vcon: Value) -> Value {
        vcon["updated_at"] = vcon["created_at"].clone();
        let payload = URL_SAFE_NO_PAD.encode(vcon.to_string());
        let protected = URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA"}).to_string());
        let signature = self.key.sign(format!("{protected}.{payload}").as_bytes());
        json!({
            "payload": payload,
            "signatures": [{
                "header": {"uuid": vcon["uuid"], "x5c": self.chain},
                "protected": protected,
                "signature": URL_SAFE_NO_PAD.encode(signature.to_bytes()),
            }],
        })
    }
}

/// A block's label, its bytes, and what lies behind it.
type Block<'a> = (&'a str, Zeroizing<Vec<u8>>, &'a str);

/// The first block of PEM (RFC 7468).
fn block(text: &str) -> Result<Option<Block<'_>>, BadSigner> {
    let Some((_, rest)) = text.split_once("-----BEGIN ") else { return Ok(None) };
    let (label, rest) = rest.split_once("-----").ok_or(BadSigner::NotPem)?;
    let (body, rest) = rest.split_once("-----END ").ok_or(BadSigner::NotPem)?;
    let behind =
        rest.strip_prefix(label).and_then(|rest| rest.strip_prefix("-----")).ok_or(BadSigner::NotPem)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = STANDARD.decode(body.as_bytes()).map_err(|_| BadSigner::NotPem)?;
    Ok(Some((label, Zeroizing::new(bytes), behind)))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};

    use super::*;

    /// A key and its certificate as OpenSSL made them, for tests alone.
    const PEM: &str = include_str!("../../tests/data/vcon-signer.pem");
    const VCON: &str = include_str!("../../tests/golden/vcon-1.json");

    fn parts() -> (String, String) {
        let at = PEM.find("-----BEGIN CERTIFICATE").unwrap();
        (PEM[..at].to_owned(), PEM[at..].to_owned())
    }

    fn decoded(value: &Value) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
    }

    fn signed() -> Value {
        Signer::from_pem(PEM).unwrap().sign(serde_json::from_str(VCON).unwrap())
    }

    #[test]
    fn a_signed_vcon_is_the_golden_one() {
        let signed = format!("{:#}\n", signed());
        expect_test::expect_file!["../../tests/golden/vcon-1.jws.json"].assert_eq(&signed);
    }

    #[test]
    fn the_signature_holds_by_the_certificate_and_for_no_other_byte() {
        let signed = signed();
        let [one] = signed["signatures"].as_array().unwrap().as_slice() else { panic!("one signature") };
        let protected: Value = serde_json::from_slice(&decoded(&one["protected"])).unwrap();
        assert_eq!(protected, json!({"alg": "EdDSA"}));
        let certificate = STANDARD.decode(one["header"]["x5c"][0].as_str().unwrap()).unwrap();
        let at = certificate.windows(12).position(|window| window == PUBLIC_KEY).unwrap() + 12;
        let key = VerifyingKey::from_bytes(certificate[at..at + 32].try_into().unwrap()).unwrap();
        let signature = Signature::from_slice(&decoded(&one["signature"])).unwrap();
        let text = format!("{}.{}", one["protected"].as_str().unwrap(), signed["payload"].as_str().unwrap());
        assert!(key.verify_strict(text.as_bytes(), &signature).is_ok());
        for at in [0, text.len() / 2, text.len() - 1] {
            let mut forged = text.clone().into_bytes();
            forged[at] ^= 1;
            assert!(key.verify_strict(&forged, &signature).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_payload_is_the_vcon_with_the_time_of_its_signing() {
        let signed = signed();
        let payload: Value = serde_json::from_slice(&decoded(&signed["payload"])).unwrap();
        let mut vcon: Value = serde_json::from_str(VCON).unwrap();
        vcon["updated_at"] = vcon["created_at"].clone();
        assert_eq!(payload, vcon);
        assert_eq!(signed["signatures"][0]["header"]["uuid"], vcon["uuid"]);
        let schema = serde_json::from_str(include_str!("../../tests/vcon.schema.json")).unwrap();
        assert!(jsonschema::is_valid(&schema, &payload));
        assert_eq!(super::super::check::faults(&payload), Vec::<String>::new());
    }

    #[test]
    fn the_order_of_the_file_and_what_else_it_says_do_not_matter() {
        let (key, certificate) = parts();
        let turned = format!("subject=CN = somebody\n{certificate}\n{key}").replace('\n', "\r\n");
        let signer = Signer::from_pem(&turned).unwrap();
        assert_eq!(signer.sign(json!({"uuid": 1})), Signer::from_pem(PEM).unwrap().sign(json!({"uuid": 1})));
        let chain = Signer::from_pem(&format!("{PEM}{certificate}")).unwrap().chain;
        assert_eq!(chain.len(), 2);
    }

    #[test]
    fn what_cannot_sign_is_named() {
        let (key, certificate) = parts();
        let other = key.replace("MC4CAQAwBQYDK2VwBCIEID8w", "MC4CAQAwBQYDK2VwBCIEID8x");
        let ecdsa = key.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vx");
        for (pem, why) in [
            (String::new(), BadSigner::NoKey),
            ("a".repeat(PEM_LEN_MAX + 1), BadSigner::NotPem),
            (key.clone(), BadSigner::NoCertificate),
            (certificate.clone(), BadSigner::NoKey),
            (format!("{key}{PEM}"), BadSigner::NoKey),
            (format!("{other}{certificate}"), BadSigner::NotItsCertificate),
            (format!("{ecdsa}{certificate}"), BadSigner::NotEd25519),
            (format!("{key}{}", certificate.repeat(CHAIN_MAX + 1)), BadSigner::NoCertificate),
            (PEM.replace("-----END PRIVATE", "-----END PUBLIC"), BadSigner::NotPem),
            (PEM.replace("MC4C", "M~4C"), BadSigner::NotPem),
        ] {
            assert_eq!(Signer::from_pem(&pem).map(|_| ()), Err(why), "{why}");
        }
        for length in 0..PEM.len() - 1 {
            assert!(Signer::from_pem(&PEM[..length]).is_err() || length > PEM.len() - 8, "{length}");
        }
    }
}
