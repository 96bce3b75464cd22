// Makes the files *.txt beside this script: for each chain addresses that its own library takes, damaged,
// foreign and test-network ones, and forms that payoutd refuses on purpose. Always the same bytes.
//
//   npm ci --ignore-scripts && node generate.mjs

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { CashAddressType, decodeCashAddress, encodeCashAddress } from '@bitauth/libauth';
import * as filecoin from '@glif/filecoin-address';
import { isValidSuiAddress, normalizeSuiAddress } from '@mysten/sui/utils';
import * as btc from '@scure/btc-signer';
import { pubECDSA, pubSchnorr } from '@scure/btc-signer/utils.js';
import { address as solana, getAddressDecoder, isAddress } from '@solana/kit';
import { Address as Ton } from '@ton/core';
import bchaddr from 'bchaddrjs';
import { address as bitcoinjs } from 'bitcoinjs-lib';
import { getAddress, getIcapAddress, isAddress as isEvm } from 'ethers';
import * as ripple from 'ripple-address-codec';
import { TronWeb } from 'tronweb';

// === chance that repeats itself ===

let drawn = 0;

/** `count` bytes, the next ones of one fixed stream. */
function bytes(count) {
  let stream = Buffer.alloc(0);
  while (stream.length < count) {
    stream = Buffer.concat([stream, createHash('sha256').update(`payoutd corpus ${drawn++}`).digest()]);
  }
  return new Uint8Array(stream.subarray(0, count));
}

const below = (limit) => Buffer.from(bytes(6)).readUIntBE(0, 6) % limit;
const one = (list) => list[below(list.length)];
const hex = (count) => Buffer.from(bytes(count)).toString('hex');
const many = (count, make) => Array.from({ length: count }, (_, at) => make(at));
const takes = (check) => {
  try {
    return check() !== false;
  } catch {
    return false;
  }
};

// === damage ===

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const put = (text, at, char) => text.slice(0, at) + char + text.slice(at + 1);
const DAMAGES = {
  'one character changed': (text) => put(text, below(text.length), one(ALPHABET)),
  'two neighbours swapped': (text) => {
    const at = below(text.length - 1);
    return text.slice(0, at) + text[at + 1] + text[at] + text.slice(at + 2);
  },
  'the case of one letter changed': (text) => {
    const at = below(text.length);
    const upper = text[at].toUpperCase();
    return put(text, at, text[at] === upper ? text[at].toLowerCase() : upper);
  },
  'the last character lost': (text) => text.slice(0, -1),
  'one character added': (text) => {
    const at = below(text.length + 1);
    return text.slice(0, at) + one(ALPHABET) + text.slice(at);
  },
};

/** Damage to `good` that `valid` can tell; where it cannot there is no checksum that could. */
function damaged(good, valid, each = 40) {
  return Object.entries(DAMAGES).map(([name, damage]) => {
    const found = new Set();
    for (let tries = 0; found.size < each && tries < each * 50; tries++) {
      const text = damage(one(good));
      if (!good.includes(text) && !valid(text)) found.add(text);
    }
    return [name, [...found]];
  });
}

// === files ===

const chains = [];

function version(name) {
  return `${name} ${JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version}`;
}

/** A chain: forms that are taken, test-network and other bad ones, and forms that are refused on purpose. */
function chain(name, currency, libraries, valid, taken, bad, refused = []) {
  const good = taken.flatMap(([, list]) => list);
  for (const text of good) if (!valid(text)) throw new Error(`${name}: the library refuses ${text}`);
  chains.push({ name, currency, libraries, valid, taken, good, bad, refused });
}

function write({ name, currency, libraries, valid, taken, good, bad, refused }) {
  const foreign = chains
    .filter((other) => other.name !== name)
    .flatMap((other) => many(6, () => one(other.good)))
    .filter((text) => !valid(text));
  const all = [...bad, ...damaged(good, valid), ['of another chain', foreign]];
  const lines = [
    `# ${name}: made by generate.mjs, which says how; do not edit.`,
    `# currency ${currency}`,
    ...libraries.map((library) => `# library ${version(library)}`),
  ];
  const section = (verdict) => ([what, list]) => lines.push(`[${verdict}] ${what}`, ...new Set(list));
  taken.forEach(section('taken'));
  all.forEach(section('bad'));
  refused.forEach(section('refused'));
  writeFileSync(new URL(`${name}.txt`, import.meta.url), lines.join('\n') + '\n');
}

// === Bitcoin and its kin ===

const net = (bech32, pubKeyHash, scriptHash) => ({ bech32, pubKeyHash, scriptHash, wif: 0x80 });
const ecdsa = () => pubECDSA(bytes(32));

function legacy(network, count) {
  return [
    ['key, Base58', many(count, () => btc.p2pkh(ecdsa(), network).address)],
    ['script, Base58', many(count, () => bitcoinjs.toBase58Check(bytes(20), network.scriptHash))],
  ];
}

function segwit(network, count) {
  const upper = (list) => list.map((text) => text.toUpperCase());
  const kinds = [
    ['Segwit 0, key', many(count, () => btc.p2wpkh(ecdsa(), network).address)],
    ['Segwit 0, script', many(count, () => btc.p2wsh(btc.p2pkh(ecdsa(), network), network).address)],
    ['Segwit 1', many(count, () => btc.p2tr(pubSchnorr(bytes(32)), undefined, network).address)],
  ];
  return [...kinds, ...kinds.map(([what, list]) => [`${what}, upper case`, upper(list.slice(0, 10))])];
}

const ownerless = (prefix) => [
  'Segwit without an owner',
  [
    ...many(20, (at) => bitcoinjs.toBech32(bytes(32), 2 + (at % 15), prefix)),
    ...many(10, (at) => bitcoinjs.toBech32(bytes([20, 2, 33, 40][at % 4]), 1, prefix)),
  ],
];

const flat = (sections) => sections.flatMap(([, list]) => list);
const decodes = (...networks) => (text) => networks.some((it) => takes(() => btc.Address(it).decode(text)));

const bitcoin = net('bc', 0x00, 0x05);
const bitcoinTests = [net('tb', 0x6f, 0xc4), net('bcrt', 0x6f, 0xc4)];
const OF_A_TEST = 'of a test network';
chain(
  'bitcoin', '0@0', ['bitcoinjs-lib', '@scure/btc-signer'], decodes(bitcoin),
  [...legacy(bitcoin, 40), ...segwit(bitcoin, 40)],
  [[OF_A_TEST, flat(bitcoinTests.flatMap((it) => [...legacy(it, 8), ...segwit(it, 6)]))], ownerless('bc')],
);

const litecoin = net('ltc', 0x30, 0x32);
const litecoinOld = net('ltc', 0x30, 0x05);
chain(
  'litecoin', '2@2', ['bitcoinjs-lib', '@scure/btc-signer'], decodes(litecoin, litecoinOld),
  [...legacy(litecoin, 40), ['script, Base58, as on Bitcoin', flat(legacy(litecoinOld, 30).slice(1))], ...segwit(litecoin, 40)],
  [
    [OF_A_TEST, flat([...legacy(net('tltc', 0x6f, 0x3a), 20), ...segwit(net('tltc', 0x6f, 0x3a), 8)])],
    ownerless('ltc'),
  ],
);

const dogecoin = net('none', 0x1e, 0x16);
chain(
  'dogecoin', '3@3', ['bitcoinjs-lib', '@scure/btc-signer'], decodes(dogecoin),
  legacy(dogecoin, 110), [[OF_A_TEST, flat(legacy(net('none', 0x71, 0xc4), 25))]],
);

// === Bitcoin Cash ===

const cash = (type, prefix = 'bitcoincash', length = 20) =>
  encodeCashAddress({ prefix, type: CashAddressType[type], payload: bytes(length) }).address;
const bare = (text) => text.slice(text.indexOf(':') + 1);
const validCash = (text) => {
  if (takes(() => bchaddr.isMainnetAddress(text))) return true;
  // bchaddrjs does not know the kinds with tokens.
  const full = text.includes(':') ? text : `bitcoincash:${text}`;
  const decoded = decodeCashAddress(full);
  return typeof decoded !== 'string' && decoded.prefix === 'bitcoincash';
};
const cashKinds = ['p2pkh', 'p2sh', 'p2pkhWithTokens', 'p2shWithTokens'];
const cashKeys = many(30, () => cash('p2pkh'));
chain(
  'bitcoin-cash', '5@5', ['bchaddrjs', '@bitauth/libauth'], validCash,
  [
    ...cashKinds.map((kind) => [`CashAddr, ${kind}`, many(25, () => cash(kind))]),
    ...cashKinds.map((kind) => [`CashAddr without prefix, ${kind}`, many(25, () => bare(cash(kind)))]),
    ['CashAddr, upper case', many(20, () => cash(one(cashKinds)).toUpperCase())],
    ['legacy', cashKeys.map((text) => bchaddr.toLegacyAddress(text))],
  ],
  [
    [OF_A_TEST, [
      ...many(20, () => cash('p2pkh', 'bchtest')), ...many(10, () => cash('p2sh', 'bchreg')),
      ...many(10, () => bare(cash('p2sh', 'bchtest'))),
      ...cashKeys.slice(0, 5).map((text) => bitcoinjs.toBase58Check(bchaddrHash(text), 0x6f)),
    ]],
  ],
  [
    ['give a CashAddr of 20 bytes', many(10, () => cash('p2sh', 'bitcoincash', 32))],
    ['give it in lower case, or with BITCOINCASH:', many(10, () => bare(cash('p2pkh')).toUpperCase())],
    ['give CashAddr, or the form 1', cashKeys.slice(0, 10).map((text) => bchaddr.toBitpayAddress(text))],
    ['give only the address that is in it', cashKeys.slice(0, 5).map((text) => `${text}?amount=1`)],
  ],
);

function bchaddrHash(text) {
  return bitcoinjs.fromBase58Check(bchaddr.toLegacyAddress(text)).hash;
}

// === the others ===

const evm = many(90, () => getAddress(`0x${hex(20)}`));
const GIVE_0X = 'must begin with 0x, in lower case';
chain(
  'evm', '60@60', ['ethers'], (text) => isEvm(text) && /^0x/.test(text),
  [
    ['EIP-55', evm],
    ['lower case', many(60, () => `0x${hex(20)}`)],
    ['upper case', many(60, () => `0x${hex(20).toUpperCase()}`)],
  ],
  [],
  [
    [GIVE_0X, [...evm.slice(0, 10).map((text) => text.slice(2)), ...evm.slice(10, 20).map((text) => text.replace('0x', '0X'))]],
    ['is in ICAP form', evm.slice(20, 30).map((text) => getIcapAddress(text))],
    ['give only the address that is in it', evm.slice(30, 35).map((text) => `ethereum:${text}`)],
  ],
);

const xrp = many(220, () => ripple.encodeAccountID(bytes(20)));
const xAddress = (test) => (text, at) => ripple.classicAddressToXAddress(text, at % 2 ? at * 77_777 : false, test);
chain(
  'xrp', '144@144', ['ripple-address-codec'], ripple.isValidClassicAddress, [['classic', xrp]],
  [[OF_A_TEST, xrp.slice(0, 30).map(xAddress(true))]],
  [['give it as classic address and memo', xrp.slice(0, 40).map(xAddress(false))]],
);

const tron = many(220, () => TronWeb.address.fromHex(`41${hex(20)}`));
chain(
  'tron', '195@195', ['tronweb'], (text) => TronWeb.isAddress(text) && text[0] === 'T', [['Base58', tron]],
  [[OF_A_TEST, many(20, () => bitcoinjs.toBase58Check(bytes(20), 0xa0))]],
  [['give the Base58 form that begins with T', tron.slice(0, 30).map((text) => TronWeb.address.toHex(text))]],
);

const solanaKey = () => getAddressDecoder().decode(bytes(32));
chain('solana', '1000@1000', ['@solana/kit'], isAddress, [['key', many(220, () => solana(solanaKey()))]], [
  ['not of 32 bytes', [...many(40, () => solanaKey() + solanaKey().slice(0, 2)), ...many(40, () => solanaKey().slice(0, 40 - below(9)))]],
]);

const ton = (workchain) => new Ton(workchain, Buffer.from(bytes(32)));
const friendly = (bounceable, urlSafe, testOnly = false) => (workchain) =>
  ton(workchain).toString({ bounceable, urlSafe, testOnly });
const anyFlags = (testOnly) => (at) => friendly(at % 2 < 1, at % 4 < 2, testOnly)(at % 8 < 6 ? 0 : -1);
const crc = (body) => {
  let sum = 0;
  for (const byte of body) {
    sum ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) sum = ((sum << 1) ^ (sum & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return Buffer.from([sum >> 8, sum & 0xff]);
};
const tagged = (tag, workchain) => {
  const body = Buffer.from([tag, workchain, ...bytes(32)]);
  return Buffer.concat([body, crc(body)]).toString('base64url');
};
const mixed = many(4000, () => friendly(true, true)(0))
  .filter((text) => text.includes('-') && text.includes('_'))
  .slice(0, 20)
  .map((text) => text.replace(/-/g, '+'));
chain(
  'ton', '2000@2000', ['@ton/core'], (text) => takes(() => Ton.parse(text)),
  [
    ['for a bounce', [...many(40, () => friendly(true, true)(0)), ...many(20, () => friendly(true, false)(0))]],
    ['without a bounce', [...many(40, () => friendly(false, true)(0)), ...many(20, () => friendly(false, false)(0))]],
    ['of the masterchain', many(40, (at) => friendly(at % 2 < 1, at % 4 < 2)(-1))],
    ['raw', many(40, (at) => ton(at % 4 ? 0 : -1).toRawString())],
    ['raw, upper case', many(20, () => `0:${hex(32).toUpperCase()}`)],
  ],
  [
    [OF_A_TEST, many(40, anyFlags(true))],
    ['unknown tag', many(30, (at) => tagged([0x00, 0x12, 0x31, 0x71, 0xff][at % 5], 0))],
  ],
  [
    ['is in a workchain that does not run', [...many(20, (at) => tagged(at % 2 ? 0x11 : 0x51, 1 + (at * 5) % 250)), ...many(10, (at) => ton(1 + at).toRawString())]],
    ['mixes the two alphabets of Base64', mixed],
  ],
);

const delegated = () => filecoin.newDelegatedEthAddress(`0x${hex(20)}`).toString();
const filecoins = (network) => [
  ['f0', many(30, () => filecoin.newIDAddress(1000 + below(3_000_000), network).toString())],
  ['f1', many(60, () => filecoin.newSecp256k1Address(bytes(65), network).toString())],
  ['f2', many(40, () => filecoin.newActorAddress(bytes(40), network).toString())],
  ['f3', many(50, () => filecoin.newBLSAddress(bytes(48), network).toString())],
];
chain(
  'filecoin', '2307@2307', ['@glif/filecoin-address'],
  (text) => text[0] === 'f' && /^f0\d+$|^f[1-4][a-z0-9]+$/.test(text) && filecoin.validateAddressString(text),
  [...filecoins('f'), ['f4', many(60, delegated)]],
  [[OF_A_TEST, [...flat(filecoins('t').map(([what, list]) => [what, list.slice(0, 12)])), ...many(12, () => `t${delegated().slice(1)}`)]]],
  [
    ['only f410f... of the forms f4 has owners', many(15, (at) => filecoin.newDelegatedAddress(11 + at * 3, bytes(20), 'f').toString())],
    ['give the form that begins with f410f', many(10, () => getAddress(`0x${hex(20)}`))],
  ],
);

const sui = many(100, () => normalizeSuiAddress(hex(32)));
const anyCase = (text) => text.replace(/[a-f]/g, (letter) => (below(2) ? letter : letter.toUpperCase()));
chain(
  'sui', '3000@3000', ['@mysten/sui'], (text) => isValidSuiAddress(text) && /^0x/.test(text),
  [
    ['lower case', sui],
    ['upper case', many(60, () => `0x${hex(32).toUpperCase()}`)],
    ['both cases', many(60, () => anyCase(normalizeSuiAddress(hex(32))))],
  ],
  [],
  [
    [GIVE_0X, [...sui.slice(0, 15).map((text) => text.slice(2)), ...sui.slice(15, 30).map((text) => text.replace('0x', '0X'))]],
    ['must have all 64 hex digits', many(20, (at) => `0x${hex(1 + at)}`)],
  ],
);

chains.forEach(write);
