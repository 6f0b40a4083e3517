//! A manifest's names as constants.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use sluice_manifest::Manifest;
use syn::{Error, Ident, Result};

/// The counters' names and positions, as an array for `Declaration::counters`.
pub(crate) fn counter_table(manifest: &Manifest) -> TokenStream {
    let mut first = 0;
    let entries = manifest.counters.iter().map(|counter| {
        let (name, len, position) = (counter.name(), counter.count(), first);
        first += len;
        quote!(::sluice_sdk::CounterName { name: #name, first: #position, len: #len })
    });
    let entries: Vec<_> = entries.collect();
    quote!([#(#entries),*])
}

/// The modules `reason`, `counter` and `table`; those without a name are left out.
pub(crate) fn modules(manifest: &Manifest, at: Span) -> Result<TokenStream> {
    let reasons = manifest.reasons.iter().zip(0_u32..).map(|(name, index)| {
        (name.as_str(), quote!(::sluice_sdk::Reason), quote!(::sluice_sdk::Reason::new(#index)))
    });
    let reasons = module("reason", "Reasons for drops.", reasons, at)?;
    let mut first = 0;
    let counters = manifest.counters.iter().map(|counter| {
        let (position, len) = (first, counter.count());
        first += len;
        let kind = match (counter.is_gauge(), counter.is_array()) {
            (false, false) => "Counter",
            (false, true) => "CounterArray",
            (true, false) => "Gauge",
            (true, true) => "GaugeArray",
        };
        let kind = format_ident!("{kind}");
        let kind = quote!(::sluice_sdk::#kind);
        let value = if counter.is_array() {
            quote!(#kind::new(#position, #len))
        } else {
            quote!(#kind::new(#position))
        };
        (counter.name(), kind, value)
    });
    let counters = module("counter", "Counters.", counters, at)?;
    let tables = manifest.tables.iter().map(|name| (name.as_str(), quote!(&str), quote!(#name)));
    let tables = module("table", "Names of tables.", tables, at)?;
    Ok(quote!(#reasons #counters #tables))
}

fn module<'a>(
    name: &str,
    about: &str,
    constants: impl Iterator<Item = (&'a str, TokenStream, TokenStream)>,
    at: Span,
) -> Result<TokenStream> {
    let mut seen = BTreeMap::new();
    let mut items = TokenStream::new();
    for (text, kind, value) in constants {
        let constant = constant(text);
        if let Some(other) = seen.insert(constant.clone(), text) {
            let text =
                format!("`{other}` and `{text}` would be one constant, `{name}::{constant}`");
            return Err(Error::new(at, text));
        }
        let about = format!("`{text}`");
        items.extend(quote!(#[doc = #about] pub const #constant: #kind = #value;));
    }
    if seen.is_empty() {
        return Ok(items);
    }
    let name = Ident::new(name, Span::call_site());
    let about = format!("{about} As the manifest names them.");
    Ok(quote! {
        #[doc = #about]
        #[allow(dead_code, unreachable_pub, reason = "not every name of the manifest need be used")]
        pub mod #name {
            #items
        }
    })
}

/// `rule-hits` as `RULE_HITS`. Names have letters, digits, `-` and `_` only.
fn constant(name: &str) -> Ident {
    let mut text = name.replace('-', "_").to_ascii_uppercase();
    if text.starts_with(|letter: char| letter.is_ascii_digit()) || text == "_" {
        text.insert(0, 'N');
    }
    Ident::new(&text, Span::call_site())
}
