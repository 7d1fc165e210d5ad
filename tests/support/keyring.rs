//! Keys of an issuer of the tests' own, and tokens put together byte by byte, so that nothing is out of reach
//! because a library would not write it.
#![allow(dead_code, reason = "each test binary uses its part")]

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs tokens.
pub enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    /// A shared secret.
    Secret(Vec<u8>),
    /// Signs with an RSA key and another hash than its algorithm's.
    RsaSha512(Box<RsaKeyPair>),
    /// Signs nothing.
    Nobody,
}

impl SigningKey {
    pub fn rsa() -> SigningKey {
        SigningKey::Rsa(Box::new(
            RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        ))
    }

    pub fn ec() -> SigningKey {
        SigningKey::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub fn ed() -> SigningKey {
        SigningKey::Ed(Ed25519KeyPair::generate().expect("a key"))
    }

    /// The algorithm by which it is known.
    pub fn alg(&self) -> &'static str {
        match self {
            SigningKey::Rsa(_) => "RS256",
            SigningKey::Ec(_) => "ES256",
            SigningKey::Ed(_) => "EdDSA",
            SigningKey::Secret(_) => "HS256",
            SigningKey::RsaSha512(_) => "RS512",
            SigningKey::Nobody => "none",
        }
    }

    /// The public half, as the issuer tells it.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            SigningKey::Rsa(pair) | SigningKey::RsaSha512(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
                    "n": base64url(public.modulus().big_endian_without_leading_zero()),
                    "e": base64url(public.exponent().big_endian_without_leading_zero()),
                })
            }
            SigningKey::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": kid,
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..65]),
                })
            }
            SigningKey::Ed(pair) => json!({
                "kty": "OKP", "use": "sig", "alg": "EdDSA", "crv": "Ed25519", "kid": kid,
                "x": base64url(pair.public_key().as_ref()),
            }),
            SigningKey::Secret(secret) => {
                json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": base64url(secret)})
            }
            SigningKey::Nobody => json!({"kty": "none", "kid": kid}),
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |pair: &RsaKeyPair, padding| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &random, message, &mut signature)
                .expect("signed");
            signature
        };
        match self {
            SigningKey::Rsa(pair) => rsa(pair, &RSA_PKCS1_SHA256),
            SigningKey::RsaSha512(pair) => rsa(pair, &RSA_PKCS1_SHA512),
            SigningKey::Ec(pair) => {
                let signature = pair.sign(&random, message).expect("signed");
                signature.as_ref().to_vec()
            }
            SigningKey::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            SigningKey::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            SigningKey::Nobody => Vec::new(),
        }
    }

    /// A token of this header and these claims, each as it stands.
    pub fn token(&self, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.as_bytes())
        );
        let signature = base64url(&self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token of these claims that names its key.
    pub fn signed(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": self.alg(), "typ": "JWT", "kid": kid});
        self.token(&header.to_string(), &claims.to_string())
    }
}
