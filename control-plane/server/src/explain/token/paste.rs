//! From what people paste to a token.
//!
//! Whatever is taken away here is said: a request that carries the token in that form would be refused.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::Mistake;

/// As `kubectl` and `base64` write it, with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How many layers are taken off.
const MAX_LAYERS: usize = 6;

/// Members of JSON answers in which providers hand out tokens, the most wanted first: OAuth 2.0, OpenID Connect, GitHub
/// Actions, AWS STS, Kubernetes `TokenRequest`.
const MEMBERS: [&str; 6] =
    ["/access_token", "/id_token", "/token", "/value", "/WebIdentityToken", "/status/token"];

/// A text in which there may be a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted {
    /// Without what does not belong to a token.
    pub text: String,
    /// What was around it.
    pub mistakes: Vec<Mistake>,
}

// === impl Pasted ===

impl Pasted {
    /// Reads what was pasted, piped or saved.
    pub fn read(bytes: &[u8]) -> Self {
        let mut pasted = Self { text: String::new(), mistakes: Vec::new() };
        let text = pasted.decode(bytes);
        // The line end that every tool adds is nobody's mistake.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        pasted.text = text.strip_suffix('\r').unwrap_or(text).to_owned();
        for _ in 0..MAX_LAYERS {
            let Some((text, mistake)) = peel(&pasted.text) else { break };
            pasted.text = text;
            pasted.mistakes.push(mistake);
        }
        pasted
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        if let Some(units) = bytes.strip_prefix(&[0xff, 0xfe]) {
            self.mistakes.push(Mistake::new(
                "utf16",
                "the input is UTF-16, as PowerShell's `>` writes it",
                "write it with `| Set-Content -NoNewline -Encoding ascii`",
            ));
            let units = units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            return char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        }
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        String::from_utf8_lossy(text).into_owned()
    }
}

/// Takes one layer off.
fn peel(text: &str) -> Option<(String, Mistake)> {
    let trimmed = text.trim();
    if trimmed.len() < text.len() {
        let mistake = Mistake::new(
            "white_space",
            "there is white space around the token",
            "remove it where the token is read: a header with it is refused",
        );
        return Some((trimmed.to_owned(), mistake));
    }
    json(text)
        .or_else(|| quotes(text))
        .or_else(|| header(text))
        .or_else(|| variable(text))
        .or_else(|| wrapped(text))
        .or_else(|| encoded(text))
}

/// The answer of a token endpoint.
fn json(text: &str) -> Option<(String, Mistake)> {
    let answer: Value = serde_json::from_str(text.trim_start().starts_with('{').then_some(text)?).ok()?;
    let (member, token) =
        MEMBERS.iter().find_map(|member| Some((member, answer.pointer(member)?.as_str()?)))?;
    let member = member.trim_start_matches('/').replace('/', ".");
    let mistake = Mistake::new(
        "json",
        format!("the input is a JSON answer; `{member}` of it is explained"),
        format!("send only that: `jq -r .{member}`"),
    );
    Some((token.to_owned(), mistake))
}

fn quotes(text: &str) -> Option<(String, Mistake)> {
    let inner =
        ['"', '\'', '`'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    let mistake = Mistake::new(
        "quotes",
        "there are quotes around the token",
        "remove them where the token is read; of JSON use `jq -r`",
    );
    Some((inner.to_owned(), mistake))
}

/// `Authorization: Bearer TOKEN`, or a part of it.
fn header(text: &str) -> Option<(String, Mistake)> {
    let is = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    if is("authorization:") {
        let mistake = Mistake::new(
            "header",
            "the input is a whole header",
            "nothing, if it was copied from a request; a variable or file that has all of it sends it twice",
        );
        let value = text.get("authorization:".len()..)?.trim_start();
        let bearer = value.get(.."bearer ".len()).filter(|start| start.eq_ignore_ascii_case("bearer "));
        let token = bearer.and_then(|bearer| value.get(bearer.len()..)).unwrap_or(value);
        return Some((token.trim_start().to_owned(), mistake));
    }
    let scheme = ["bearer", "dpop", "jwt", "token"].into_iter().find(|scheme| is(&format!("{scheme} ")))?;
    let mistake = match scheme {
        "bearer" => Mistake::new(
            "bearer",
            "the input begins with `Bearer `, which is not part of a token",
            "if the variable or file has it, too, a client that adds it sends it twice, and is refused",
        ),
        _ => Mistake::new(
            "scheme",
            format!(
                "the input begins with `{}`: that is another scheme than `Bearer`",
                text.get(..scheme.len())?
            ),
            "send `Authorization: Bearer TOKEN`, unless the TrustedIssuer names another scheme",
        ),
    };
    Some((text.get(scheme.len()..)?.trim_start().to_owned(), mistake))
}

/// `export NAME=TOKEN`.
fn variable(text: &str) -> Option<(String, Mistake)> {
    let (name, value) = text.strip_prefix("export ").unwrap_or(text).split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    // The padding of an encoded text is no assignment.
    let is_assigned = is_name && !value.trim_matches('=').is_empty();
    let mistake =
        Mistake::new("variable", "the input is an assignment to a variable", "send the value of it alone");
    is_assigned.then(|| (value.to_owned(), mistake))
}

/// A token that a terminal or an editor broke into lines.
fn wrapped(text: &str) -> Option<(String, Mistake)> {
    let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mistake = Mistake::new(
        "wrapped",
        "there is white space inside the token, as if it had been wrapped",
        "copy it in one piece: with white space inside it is refused",
    );
    (joined.len() < text.len() && joined.starts_with("eyJ") && joined.matches('.').count() == 2)
        .then_some((joined, mistake))
}

/// A JWT that is encoded once more.
fn encoded(text: &str) -> Option<(String, Mistake)> {
    let text = text.starts_with("ZXlK").then_some(text)?;
    let token = String::from_utf8(LENIENT.decode(text).ok()?).ok()?;
    let mistake = Mistake::new(
        "encoded",
        "the token is base64 once more, as in `.data` of a Kubernetes Secret",
        "decode it (`base64 -d`); better, mount a projected token: those in Secrets never expire and are refused",
    );
    Some((token, mistake))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";

    fn codes(pasted: &Pasted) -> Vec<&'static str> {
        pasted.mistakes.iter().map(|mistake| mistake.code).collect()
    }

    #[test]
    fn takes_off_what_is_around_a_token_and_says_so() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(TOKEN);
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(TOKEN.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let (header, rest) = TOKEN.split_at(20);
        for (input, expected) in [
            (TOKEN.to_owned(), &[][..]),
            (format!("{TOKEN}\n"), &[]),
            (format!("{TOKEN}\r\n"), &[]),
            (format!("\u{feff}{TOKEN}"), &[]),
            (format!(" {TOKEN}"), &["white_space"]),
            (format!("{TOKEN}\n\n"), &["white_space"]),
            (format!("\"{TOKEN}\""), &["quotes"]),
            (format!("'{TOKEN}'\n"), &["quotes"]),
            (format!("Bearer {TOKEN}"), &["bearer"]),
            (format!("bearer  {TOKEN}"), &["bearer"]),
            (format!("Authorization: Bearer {TOKEN}\r\n"), &["header"]),
            (format!("authorization:bearer  {TOKEN}"), &["header"]),
            (format!("Authorization: DPoP {TOKEN}"), &["header", "scheme"]),
            (format!("DPoP {TOKEN}"), &["scheme"]),
            (format!("export ORDERS_TOKEN='{TOKEN}'"), &["variable", "quotes"]),
            (format!("ORDERS_TOKEN={TOKEN}"), &["variable"]),
            (format!("{{\"access_token\": \"{TOKEN}\", \"expires_in\": 3599}}"), &["json"]),
            (format!("{{\"status\": {{\"token\": \"{TOKEN}\"}}}}"), &["json"]),
            (format!("{{\"id_token\": \"x\", \"access_token\": \"{TOKEN}\"}}"), &["json"]),
            (format!("{header}\n  {rest}"), &["wrapped"]),
            (encoded.clone(), &["encoded"]),
            (encoded.trim_end_matches('=').to_owned(), &["encoded"]),
        ] {
            let pasted = Pasted::read(input.as_bytes());
            assert_eq!((pasted.text.as_str(), codes(&pasted)), (TOKEN, expected.to_vec()), "{input:?}");
        }
        let pasted = Pasted::read(&utf16);
        assert_eq!((pasted.text.as_str(), codes(&pasted)), (TOKEN, vec!["utf16"]));
    }

    #[test]
    fn leaves_alone_what_is_no_layer() {
        for input in
            ["", "opaque", "a=b.c", "{\"keys\": []}", "{", "ZXlK!", "Bearer", "x y z", "=", "a==", "\"", "é"]
        {
            let pasted = Pasted::read(input.as_bytes());
            let expected = if input == "a=b.c" { "b.c" } else { input };
            assert_eq!(pasted.text, expected, "{input}");
        }
        // Never without an end.
        let deep = "'".repeat(100);
        assert_eq!(Pasted::read(deep.as_bytes()).mistakes.len(), MAX_LAYERS);
        let _ = Pasted::read(&[0xff, 0xfe, 0x00]);
        let _ = Pasted::read(&[0xff, 0x00, 0xc3]);
    }
}
