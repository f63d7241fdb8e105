// Text → tokens → text is the identity for every well-formed string, for wide and narrow vocabularies, in one piece or
// token by token.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteTokenizer, TokenDecoder } from '../../src/serve/body/tokenizer.ts';

describe.each([97, 256, 201_088])('a vocabulary of %i', (vocabSize) => {
  const tokenizer = new ByteTokenizer(vocabSize);

  test('gives every well-formed string back', () => {
    const text = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: 'binary' }),
      fc.string({ unit: fc.constantFrom('<|', '|>', '0', '6', '91', 'é') }),
    );
    fc.assert(fc.property(text, (given) => tokenizer.decode(tokenizer.encode(given)) === given));
  });

  test('never leaves the vocabulary', () => {
    fc.assert(fc.property(fc.string(), (text) => tokenizer.encode(text).every((token) => token < vocabSize)));
  });

  test('decodes a token at a time what it decodes at once', () => {
    const tokens = fc.array(fc.nat(vocabSize - 1));
    fc.assert(
      fc.property(tokens, (given) => {
        const decoder = new TokenDecoder(tokenizer);
        const text = given.map((token) => decoder.push([token])).join('') + decoder.end();
        expect(text).toBe(tokenizer.decode(given));
        expect(text.isWellFormed()).toBe(true);
      }),
    );
  });
});

test('tokens that are no bytes are written by number, and only what can be one is read as one', () => {
  const tokenizer = new ByteTokenizer(300);
  expect(tokenizer.decode([104, 299, 105])).toBe('h<|299|>i');
  expect(Array.from(tokenizer.encode('h<|299|>i'))).toEqual([104, 299, 105]);
  for (const text of ['<|300|>', '<|0299|>', '<|65|>', '<|-1|>', '<||>']) {
    expect(tokenizer.encode(text).length).toBe(text.length);
  }
});

test('a cut character is held back, then replaced', () => {
  const tokenizer = new ByteTokenizer(256);
  const decoder = new TokenDecoder(tokenizer);
  const [first, second] = Array.from(tokenizer.encode('é'));
  expect(decoder.push([first!])).toBe('');
  expect(decoder.push([second!])).toBe('é');
  expect(decoder.push([first!])).toBe('');
  expect(decoder.end()).toBe('\u{fffd}');
});
