//! The page: one document with its style and its script inside, which no network and no other file is needed for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::image::digest::Sha256;

const DOCUMENT: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page, and what a browser may do for it.
pub struct Page {
    /// HTML.
    pub html: String,
    /// Value of the header `Content-Security-Policy`: this style, this script and questions to where the page is from, nothing else.
    pub policy: String,
}

impl Page {
    /// Puts style and script in their places.
    #[must_use]
    pub fn assemble() -> Self {
        let html = DOCUMENT.replace("{style}", STYLE).replace("{script}", SCRIPT);
        let digest = |text: &str| BASE64.encode(Sha256::of(&[text.as_bytes()]).0);
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            digest(STYLE),
            digest(SCRIPT)
        );
        Self { html, policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_for_nothing_from_elsewhere() {
        let Page { html, policy } = Page::assemble();
        assert!(html.contains(&format!("<style>{STYLE}</style>")));
        assert!(html.contains(&format!("<script>{SCRIPT}</script>")));
        for word in ["src=", "href=", "@import", "url("] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    }

    /// A browser would take what follows for markup, and no part of the page makes markup of text.
    #[test]
    fn the_script_makes_text_nodes_only() {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "</",
            "<!--",
        ] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
    }
}
