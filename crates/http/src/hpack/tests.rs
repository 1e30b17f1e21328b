// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

/// Name, value, whether valid, whether sensitive.
type Read = (String, String, bool, bool);

#[derive(Default)]
struct Fields(Vec<Read>);

impl Sink for Fields {
    fn field(&mut self, entry: &Entry<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.0.push((text(entry.name()), text(entry.value()), entry.valid, entry.sensitive));
        assert!(entry.hash == 0 || entry.hash == hash(entry.name(), entry.value()));
        assert_eq!(entry.known, FieldName::of(entry.name()));
        if !entry.huffman.is_empty() {
            let mut value = Vec::new();
            huffman::decode(entry.huffman, &mut value).unwrap();
            assert_eq!(value, entry.value());
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Read>, Error> {
    let mut fields = Fields::default();
    decoder.decode(block, usize::MAX, &mut fields)?;
    Ok(fields.0)
}

fn pairs(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
    let fields = decode(decoder, &bytes(block)).unwrap();
    fields
        .into_iter()
        .map(|(name, value, valid, _)| {
            assert!(valid);
            (name, value)
        })
        .collect()
}

fn list(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn single_fields_of_appendix_c_2() {
    let mut decoder = Decoder::new(4096);
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    assert_eq!(pairs(&mut decoder, custom), list(&[("custom-key", "custom-header")]));
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    assert_eq!(pairs(&mut decoder, path), list(&[(":path", "/sample/path")]));
    let password = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let read = decode(&mut decoder, &password).unwrap();
    assert_eq!(read, [("password".to_owned(), "secret".to_owned(), true, true)]);
    assert_eq!(pairs(&mut decoder, "82"), list(&[(":method", "GET")]));
}

/// The requests of appendix C.3 and C.4.
fn requests(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    let common = |path, scheme| {
        [(":method", "GET"), (":scheme", scheme), (":path", path), (":authority", "www.example.com")]
    };
    assert_eq!(pairs(&mut decoder, blocks[0]), list(&common("/", "http")));
    let mut second = common("/", "http").to_vec();
    second.push(("cache-control", "no-cache"));
    assert_eq!(pairs(&mut decoder, blocks[1]), list(&second));
    let mut third = common("/index.html", "https").to_vec();
    third.push(("custom-key", "custom-value"));
    assert_eq!(pairs(&mut decoder, blocks[2]), list(&third));
}

#[test]
fn requests_of_appendix_c_3_and_c_4() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

/// The responses of appendix C.5 and C.6, with a table of 256 octets that evicts.
fn responses(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(256);
    let common = |status, date| {
        [
            (":status", status),
            ("cache-control", "private"),
            ("date", date),
            ("location", "https://www.example.com"),
        ]
    };
    let first = common("302", "Mon, 21 Oct 2013 20:13:21 GMT");
    assert_eq!(pairs(&mut decoder, blocks[0]), list(&first));
    let second = common("307", "Mon, 21 Oct 2013 20:13:21 GMT");
    assert_eq!(pairs(&mut decoder, blocks[1]), list(&second));
    let mut third = common("200", "Mon, 21 Oct 2013 20:13:22 GMT").to_vec();
    third.push(("content-encoding", "gzip"));
    third.push(("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"));
    assert_eq!(pairs(&mut decoder, blocks[2]), list(&third));
}

#[test]
fn responses_of_appendix_c_5_and_c_6() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133
         3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a
         6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d
         6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ]);
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d
         29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d
         d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106
         3d50 07",
    ]);
}

#[test]
fn blocks_that_break_the_rules_are_errors() {
    let refused = |hex: &str| decode(&mut Decoder::new(4096), &bytes(hex)).unwrap_err();
    // Index 0, and one past the table.
    assert_eq!(refused("80"), Error::Index);
    assert_eq!(refused("be"), Error::Index);
    assert_eq!(refused("7e0161"), Error::Index);
    // Cut inside an index, a length, a string.
    assert_eq!(refused("ff"), Error::Truncated);
    assert_eq!(refused("00"), Error::Truncated);
    assert_eq!(refused("0003 6162"), Error::Truncated);
    assert_eq!(refused("0001 61"), Error::Truncated);
    assert_eq!(refused("00ff ffff ffff ff7f"), Error::IntegerTooLarge);
    // A size above the limit, a third one, one behind a field.
    assert_eq!(refused("3fe2 1f"), Error::TableSize);
    assert_eq!(refused("2020 20"), Error::TableSize);
    assert_eq!(refused("8220"), Error::TableSize);
    assert_eq!(refused("0001 6181 1e"), Error::Huffman);
}

#[test]
fn a_peer_has_to_shrink_its_table_when_it_acknowledged_a_smaller_one() {
    let mut decoder = Decoder::new(4096);
    decoder.set_limit(100);
    assert_eq!(decode(&mut decoder, &bytes("82")), Err(Error::TableSize));
    let mut decoder = Decoder::new(4096);
    decoder.set_limit(100);
    assert_eq!(decode(&mut decoder, &bytes("3f45 82")).unwrap().len(), 1);
    assert_eq!(decode(&mut decoder, &bytes("82")).unwrap().len(), 1);
}

#[test]
fn what_is_not_allowed_in_a_field_stays_marked_in_the_table() {
    let mut decoder = Decoder::new(4096);
    // A line end in the value, the entry again, and its name with another value; then a capital letter.
    let read = decode(&mut decoder, b"\x40\x06custom\x02a\n\xbe\x7e\x01a").unwrap();
    assert_eq!(read.iter().map(|field| field.2).collect::<Vec<_>>(), [false, false, true]);
    let read = decode(&mut decoder, b"\x40\x06Custom\x01a\xbe\x7e\x01a").unwrap();
    assert_eq!(read.iter().map(|field| field.2).collect::<Vec<_>>(), [false, false, false]);
}

#[test]
fn fields_behind_the_limit_of_the_list_are_read_but_not_given() {
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::default();
    // One entry of 3,000 octets, and a thousand references to it: 3 MB out of 4 kB.
    let mut block = b"\x40\x01a".to_vec();
    integer::encode(3000, 7, 0, &mut block);
    block.extend_from_slice(&[b'v'; 3000]);
    block.extend_from_slice(&[0xbe; 1000]);
    let size = decoder.decode(&block, 16 << 10, &mut fields).unwrap();
    assert_eq!((size, fields.0.len()), (1001 * 3033, 5));
    assert_eq!(decode(&mut decoder, &[0xbe]).unwrap().len(), 1, "the table is what the peer thinks");
}

fn encode(encoder: &mut Encoder, fields: &[(&str, &str, Indexing)]) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for (name, value, indexing) in fields {
        encoder.field(&Line::plain(name.as_bytes(), value.as_bytes()), *indexing, &mut block);
    }
    block
}

#[test]
fn a_field_that_was_sent_is_one_octet() {
    let mut encoder = Encoder::default();
    let fields = [("x-one", "1", Indexing::Insert), ("x-two", "2", Indexing::Insert)];
    let first = encode(&mut encoder, &fields);
    assert_eq!(encode(&mut encoder, &fields), [0xbf, 0xbe]);
    assert_eq!(encode(&mut encoder, &[(":method", "POST", Indexing::Insert)]), [0x83]);
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &first).unwrap().len(), 2);
    assert_eq!(decode(&mut decoder, &[0xbf, 0xbe]).unwrap()[1].0, "x-two");
}

#[test]
fn a_known_name_is_referred_to_and_a_secret_is_never_put_into_a_table() {
    let mut encoder = Encoder::default();
    let secret = [("authorization", "secret", Indexing::Never)];
    assert_eq!(encode(&mut encoder, &secret), b"\x1f\x08\x06secret");
    assert_eq!(encode(&mut encoder, &secret), b"\x1f\x08\x06secret");
    encode(&mut encoder, &[("x-one", "1", Indexing::Insert)]);
    assert_eq!(encode(&mut encoder, &[("x-one", "2", Indexing::Without)]), b"\x0f\x2f\x012");
    // Not even a field that is in the static table is referred to.
    assert_eq!(encode(&mut encoder, &[("accept-encoding", "gzip, deflate", Indexing::Never)])[0], 0x1f);
}

#[test]
fn of_a_value_that_is_always_new_the_name_is_sent_once() {
    let mut encoder = Encoder::default();
    let mut id = |value: &str| {
        let mut block = Vec::new();
        let name = b"x-request-id";
        let line = Line { known: FieldName::XRequestId, ..Line::plain(name, value.as_bytes()) };
        encoder.field(&line, Indexing::Without, &mut block);
        block
    };
    assert!(id("one").len() > 12);
    assert_eq!(id("two"), b"\x0f\x2f\x03two");
    assert_eq!(id("three"), b"\x0f\x2f\x05three");
}

#[test]
fn huffman_octets_go_on_as_they_came() {
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    let huffman = [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
    let line = Line { huffman: &huffman, ..Line::plain(b"cache-control", b"no-cache") };
    encoder.field(&line, Indexing::Without, &mut block);
    assert_eq!(block, [&[0x0f, 0x09, 0x86][..], &huffman].concat());
}

#[test]
fn the_size_of_the_table_is_told_before_the_next_field() {
    let mut encoder = Encoder::default();
    encoder.set_limit(65_536);
    assert_eq!(encode(&mut encoder, &[(":method", "GET", Indexing::Insert)]), [0x82], "ours is the smaller");
    encoder.set_limit(0);
    encoder.set_limit(100);
    assert_eq!(encode(&mut encoder, &[]), [0x20, 0x3f, 0x45]);
    assert_eq!(encode(&mut encoder, &[]), []);
    encoder.set_limit(50);
    assert_eq!(encode(&mut encoder, &[]), [0x3f, 0x13]);
}

fn field() -> impl Strategy<Value = (String, String, Indexing)> {
    let name = prop_oneof!["[a-z]{1,3}", "x-[a-z-]{1,40}", Just("content-type".to_owned())];
    let value = prop_oneof!["[a-c]{0,2}", "[ -~]{0,80}", "[a-z]{200,900}", "\\PC{0,9}"];
    let value = value.prop_map(|text: String| text.trim().to_owned());
    let indexing =
        prop_oneof![4 => Just(Indexing::Insert), 1 => Just(Indexing::Without), 1 => Just(Indexing::Never)];
    (name, value, indexing)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Through an encoder, a decoder, a second encoder that takes over hashes and Huffman octets, and a
    /// second decoder, with tables that change their size between the blocks.
    #[test]
    fn fields_come_through_two_tables(
        blocks in prop::collection::vec((prop::collection::vec(field(), 0..20), 0_usize..5000), 1..12)
    ) {
        let (mut first, mut second) = (Encoder::default(), Encoder::default());
        let (mut between, mut last) = (Decoder::new(4096), Decoder::new(4096));
        for (fields, size) in blocks {
            first.set_limit(size);
            second.set_limit(5000 - size);
            let mut block = Vec::new();
            first.begin(&mut block);
            for (name, value, indexing) in &fields {
                let mut coded = Vec::new();
                huffman::encode(value.as_bytes(), &mut coded);
                let plain = Line::plain(name.as_bytes(), value.as_bytes());
                let huffman = if value.len() % 2 == 0 { &coded[..] } else { &[] };
                first.field(&Line { huffman, ..plain }, *indexing, &mut block);
            }
            let mut passed = Pass { encoder: &mut second, out: Vec::new() };
            passed.encoder.begin(&mut passed.out);
            between.decode(&block, usize::MAX, &mut passed).unwrap();
            let out = passed.out;
            let read = decode(&mut last, &out).unwrap();
            let wanted: Vec<Read> = fields
                .iter()
                .map(|(name, value, indexing)| {
                    (name.clone(), value.clone(), true, *indexing == Indexing::Never)
                })
                .collect();
            prop_assert_eq!(read, wanted);
        }
    }

    #[test]
    fn any_block_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::new(4096);
        let mut fields = Fields::default();
        let size = decoder.decode(&block, 1000, &mut fields);
        let given: usize = fields.0.iter().map(|(name, _, _, _)| name.len() + 32).sum();
        prop_assert!(given <= 1000);
        prop_assert!(size.is_err() || size.unwrap() >= given);
    }
}

/// What an intermediary does: each field goes on as it came.
struct Pass<'e> {
    encoder: &'e mut Encoder,
    out: Vec<u8>,
}

impl Sink for Pass<'_> {
    fn field(&mut self, entry: &Entry<'_>) {
        let indexing = match entry {
            Entry { sensitive: true, .. } => Indexing::Never,
            Entry { hash: 0, .. } => Indexing::Without,
            _ => Indexing::Insert,
        };
        let Entry { huffman, hash, known, .. } = *entry;
        let line = Line { name: entry.name(), value: entry.value(), huffman, hash, known };
        self.encoder.field(&line, indexing, &mut self.out);
    }
}
