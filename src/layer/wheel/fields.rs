//! The small encodings inside zip headers: little-endian fields, the zip64 extra field, code page 437.

/// Takes little-endian fields off the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// The blocks of an extra field: id and data (APPNOTE 4.5.1). Stops at what is not a block.
fn blocks(extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut fields = Fields::new(extra);
    std::iter::from_fn(move || {
        let (id, len) = (fields.u16()?, fields.u16()?);
        Some((id, fields.take(len.into())?))
    })
}

/// Sizes and offset after the zip64 extra field (APPNOTE 4.5.3) has replaced those that are saturated.
pub(super) struct Zip64 {
    pub size: u64,
    pub compressed: u64,
    pub header: u64,
}

impl Zip64 {
    /// `None` if a value is saturated and the field that must hold it is missing or doubled.
    pub fn parse(extra: &[u8], size: u32, compressed: u32, header: u32) -> Option<Self> {
        let mut found = blocks(extra).filter(|(id, _)| *id == 1);
        let block = found.next();
        if found.next().is_some() {
            return None;
        }
        let mut fields = Fields::new(block.map_or(&[], |(_, data)| data));
        let mut widen = |value: u32| match value {
            u32::MAX if block.is_some() => fields.u64(),
            value => Some(value.into()),
        };
        Some(Self {
            size: widen(size)?,
            compressed: widen(compressed)?,
            header: widen(header)?,
        })
    }
}

/// The Info-ZIP Unicode path (APPNOTE 4.6.9) if it belongs to `name`.
pub(super) fn unicode_path<'a>(extra: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (_, data) = blocks(extra).find(|(id, _)| *id == 0x7075)?;
    let (head, path) = data.split_at_checked(5)?;
    let crc = u32::from_le_bytes(head[1..].try_into().ok()?);
    (head[0] == 1 && crc == crc32fast::hash(name)).then_some(path)
}

/// Code page 437, the encoding of names without the UTF-8 flag (APPNOTE appendix D).
pub(super) fn cp437(bytes: &[u8]) -> String {
    const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
    bytes
        .iter()
        .map(|&byte| match byte.checked_sub(128) {
            None => char::from(byte),
            Some(upper) => UPPER.chars().nth(upper.into()).unwrap_or('\u{fffd}'),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_page_437_is_complete() {
        let all: Vec<u8> = (128..=255).collect();
        let text = cp437(&all);
        assert_eq!(text.chars().count(), 128);
        assert!(!text.contains('\u{fffd}'));
        assert_eq!(cp437(b"na\x8bve \xe1"), "naïve ß");
    }

    #[test]
    fn saturated_sizes_come_from_the_zip64_field_in_order() {
        let mut extra = vec![0x99, 0x99, 1, 0, 7, 1, 0, 16, 0];
        extra.extend_from_slice(&(5_u64 << 32).to_le_bytes());
        extra.extend_from_slice(&(6_u64 << 32).to_le_bytes());
        let found = Zip64::parse(&extra, u32::MAX, 3, u32::MAX).unwrap();
        assert_eq!(
            (found.size, found.compressed, found.header),
            (5 << 32, 3, 6 << 32)
        );
        assert!(Zip64::parse(&extra, u32::MAX, u32::MAX, u32::MAX).is_none());
    }
}
