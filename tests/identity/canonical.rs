//! RFC 8785 for the values that identity documents hold, written from the specification alone: the judge of the
//! crate's own encoder. Also SHA-256 keys, so that vectors need nothing of the crate.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The canonical text of a value.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => {
            let integer = number.as_i64().expect("identity documents hold integers");
            assert!(integer.abs() < 1 << 53, "{integer} is not exact everywhere");
            integer.to_string()
        }
        Value::String(string) => quoted(string),
        Value::Array(list) => {
            let members: Vec<String> = list.iter().map(text).collect();
            format!("[{}]", members.join(","))
        }
        Value::Object(map) => {
            let mut members: Vec<(Vec<u16>, String)> = map
                .iter()
                .map(|(name, value)| {
                    let member = format!("{}:{}", quoted(name), text(value));
                    (name.encode_utf16().collect(), member)
                })
                .collect();
            members.sort();
            let members: Vec<String> = members.into_iter().map(|(_, member)| member).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// RFC 8785, section 3.2.2.2.
fn quoted(string: &str) -> String {
    let mut out = String::from('"');
    for character in string.chars() {
        match character {
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// `sha256:` and the hex digits of the SHA-256 of a text.
pub fn key(canonical: &str) -> String {
    let digits: String = Sha256::digest(canonical)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}
