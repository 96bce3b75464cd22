//! Cregis's signature: one pure rule, used in both directions.
//!
//! Parameters that are empty are left out, the rest are sorted by name in byte order and written
//! name-then-value without separators behind the API key; the signature is the MD5 of those UTF-8
//! bytes in lower-case hex. Because nothing separates names from values, two different messages
//! can share a signature: a valid one proves that the key's holder wrote these bytes in *some*
//! arrangement, so it never decides about money by itself.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::json::Json;

/// Returns the signature of `parameters` under `key`: 32 lower-case hex digits.
///
/// Every value is given in the form in which it is signed: text as it is, integers as decimal
/// digits. A parameter named `sign` is left out, as is every empty value.
pub fn sign(key: &str, parameters: &[(&str, &str)]) -> String {
    hex::encode(digest(key, parameters))
}

/// Tells whether `signature` is the signature of `parameters` under `key`, in constant time.
pub fn verify(key: &str, parameters: &[(&str, &str)], signature: &str) -> bool {
    let mut given = [0u8; 16];
    // The vendor writes lower case only; `hex` would also take upper case.
    let lower = signature.bytes().all(|byte| !byte.is_ascii_uppercase());
    let decoded = hex::decode_to_slice(signature, &mut given).is_ok();
    lower && decoded && digest(key, parameters).ct_eq(&given).into()
}

/// The parameters of a message in the form in which they are signed.
///
/// `None` where `body` is not a flat object, or holds a number that is not exactly an integer.
pub fn parameters(body: &Json) -> Option<Vec<(&str, String)>> {
    let Json::Object(fields) = body else { return None };
    let signed = fields.iter().map(|(name, value)| {
        let text = match value {
            Json::Text(text) => text.clone(),
            Json::Integer(value) => value.to_string(),
            Json::Bool(value) => value.to_string(),
            Json::Null => String::new(),
            Json::Decimal(_) | Json::List(_) | Json::Object(_) => return None,
        };
        Some((name.as_str(), text))
    });
    signed.collect()
}

fn digest(key: &str, parameters: &[(&str, &str)]) -> [u8; 16] {
    let mut sorted: Vec<_> =
        parameters.iter().filter(|(name, value)| *name != "sign" && !value.is_empty()).collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);

    let mut md5 = Md5::new();
    md5.update(key);
    for (name, value) in sorted {
        md5.update(name);
        md5.update(value);
    }
    md5.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the vendor's published examples.
    const KEY: &str = "f502a9ac9ca54327986f29c03b271491";
    const PID: (&str, &str) = ("pid", "1382528827416576");
    const ADDRESS: (&str, &str) = ("address", "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS");
    const ID: (&str, &str) = ("third_party_id", "c9231e604da54469a735af3f449c880f");
    const NONCE: (&str, &str) = ("nonce", "hwlkk6");
    const TIME: (&str, &str) = ("timestamp", "1688004243314");
    const LOCAL: (&str, &str) = ("callback_url", "http://192.168.2.29:9099/callback");
    const REMARK: (&str, &str) = ("remark", "payout");

    /// A create call of the vendor's examples: the common fields and `more`.
    fn create(more: &[(&'static str, &'static str)]) -> String {
        let common = [PID, ("currency", "195@195"), ADDRESS, ("amount", "1.1")];
        sign(KEY, &[&common, more].concat())
    }

    #[test]
    fn the_vendors_create_vectors_hold() {
        let second = [
            ("third_party_id", "19faf9d3c8f34caf926f332f3021e887"),
            ("nonce", "mb8udu"),
            ("timestamp", "1688003966801"),
        ];
        let public = ("callback_url", "https://your-domain.com/callback");
        let first = create(&[ID, NONCE, TIME, LOCAL, REMARK]);
        assert_eq!(first, "d6eef2de79e39f434a38efb910213ba6", "vector 1");
        let second = create(&[&second[..], &[LOCAL, REMARK]].concat());
        assert_eq!(second, "c9bae061ae3f5f8d3bfde817f6966c36", "vector 2");
        let third = create(&[ID, NONCE, TIME, public, REMARK]);
        assert_eq!(third, "f76fb193e9d34d2e59fef64e3418f79b", "vector 3");
    }

    #[test]
    fn the_vendors_read_vectors_hold() {
        let rows: [(&str, &[(&str, &str)]); 6] = [
            (
                "af825ddb839e6796d62977caf18d3394",
                &[("cid", "1382626461605888"), ("nonce", "sw7kv5"), ("timestamp", "1687853722065")],
            ),
            (
                "cebd2bfd56766f1143dc40d078b64dac",
                &[
                    ADDRESS,
                    ("chain_id", "195"),
                    ("nonce", "m8jisx"),
                    ("timestamp", "1687848653294"),
                ],
            ),
            (
                "48036043999446485fe0d20a838a00dc",
                &[
                    ADDRESS,
                    ("chain_id", "195"),
                    ("nonce", "tvccuh"),
                    ("timestamp", "1687849472174"),
                ],
            ),
            (
                "93aad14ccb8109cfafd68f024fe7248a",
                &[("cid", "1382625403125760"), ("nonce", "pfvt1t"), ("timestamp", "1687851045181")],
            ),
            (
                "93967ecbcbd0e696cac1aaf75f8b2bb9",
                &[("cid", "1382625403125760"), ("nonce", "bw688v"), ("timestamp", "1687850871253")],
            ),
            (
                "2bd758a21e73018b9d09b189d2c3ab9d",
                &[("nonce", "m8jisx"), ("timestamp", "1687848653294")],
            ),
        ];
        for (number, (expected, parameters)) in rows.into_iter().enumerate() {
            let signed = sign(KEY, &[&[PID], parameters].concat());
            assert_eq!(signed, expected, "row {number} (published vectors 4 to 8, then coins)");
        }
    }

    #[test]
    fn ids_above_2_to_the_53_and_nested_json_sign_exactly() {
        assert_eq!(sign("key", &[("cid", "9007199254740993")]), "84ebf6a4564c37ddf28ce80a64aadcba");
        let data = r#"{"cregis_id":"po-test","order_id":"merchant-test","refund_id":"rf-test","refund_status":1}"#;
        let event = [
            ("event_name", "order"),
            ("event_type", "refunded"),
            ("pid", "123456789"),
            ("nonce", "abc123"),
            ("timestamp", "1719994383015"),
            ("data", data),
        ];
        assert_eq!(sign("fixture-api-key", &event), "9e2b39ae45341e1d912dda3e31a3dddf");
    }

    #[test]
    fn empty_is_left_out_blank_is_signed_and_text_is_utf_8() {
        let bare = "2a1f85daf2f04381eecc17338304002c";
        assert_eq!(create(&[ID, NONCE, TIME]), bare);
        assert_eq!(create(&[ID, NONCE, TIME, ("remark", ""), ("callback_url", "")]), bare);
        assert_eq!(create(&[ID, NONCE, TIME, ("sign", "anything")]), bare);
        let utf_8 = create(&[ID, NONCE, TIME, LOCAL, ("remark", "Zahlung – 提币")]);
        assert_eq!(utf_8, "61b63920c19d15df536d22e67778d694");
        let blank = create(&[ID, NONCE, TIME, LOCAL, ("remark", " ")]);
        assert_eq!(blank, "eac1d5788151b35b4422ca15936fab19");
        let xrp = [
            PID,
            ("currency", "144@144"),
            ("address", "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc"),
            ("amount", "1.1"),
            ("memo", "123"),
            ID,
            NONCE,
            TIME,
        ];
        assert_eq!(sign(KEY, &xrp), "2312b8557e9d61c59175339c3c17720b");
    }

    #[test]
    fn a_notice_signs_like_a_request() {
        let txid = "6dd05b0972075542219a3fcc116c58feaf9480f1f698cc46c4367ded83955cfd";
        let notice = |status: &'static str| {
            [
                PID,
                ("cid", "1391751691788288"),
                ADDRESS,
                ("chain_id", "195"),
                ("token_id", "195"),
                ("currency", "TRX"),
                ("amount", "1.1"),
                ("third_party_id", "1e0fb3a0a9454ad8928d26b592e8b3c7"),
                REMARK,
                ("status", status),
                ("txid", txid),
                ("block_height", "34527604"),
                ("block_time", "1686814482000"),
                ("nonce", "ubqso3"),
                ("timestamp", "1687850657960"),
            ]
        };
        assert_eq!(sign(KEY, &notice("6")), "b97ca7e3d5e05d92e12274b28054f9a5");
        assert_eq!(sign(KEY, &notice("0")), "e3409fab45b12980dbf7d592e8aef649", "zero is signed");
    }

    #[test]
    fn verify_takes_the_one_signature_and_no_other() {
        let parameters = [("cid", "9007199254740993")];
        assert!(verify("key", &parameters, "84ebf6a4564c37ddf28ce80a64aadcba"));
        for wrong in [
            "84EBF6A4564C37DDF28CE80A64AADCBA",
            "84ebf6a4564c37ddf28ce80a64aadcbb",
            "84ebf6a4564c37ddf28ce80a64aadcb",
            "84ebf6a4564c37ddf28ce80a64aadcbaa",
            "",
        ] {
            assert!(!verify("key", &parameters, wrong), "{wrong:?}");
        }
        assert!(!verify("other", &parameters, "84ebf6a4564c37ddf28ce80a64aadcba"));
    }

    #[test]
    fn a_flat_message_of_exact_values_becomes_parameters_and_no_other_does() {
        let read = |text: &str| Json::parse(text.as_bytes()).expect(text);
        let flat = read(r#"{"cid":9007199254740993,"memo":null,"a":"x","b":true,"remark":""}"#);
        let text = [("cid", "9007199254740993"), ("memo", ""), ("a", "x"), ("b", "true")];
        let mut expected = text.map(|(name, value)| (name, value.to_owned())).to_vec();
        expected.push(("remark", String::new()));
        assert_eq!(parameters(&flat), Some(expected));
        for other in [r#"{"a":1.0}"#, r#"{"a":[]}"#, r#"{"a":{}}"#, "[]", "1", "null"] {
            assert_eq!(parameters(&read(other)), None, "{other}");
        }
    }
}
