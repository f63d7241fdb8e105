/** The index of a payload: what is read is what was written, for each row its request and position (L3). */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SPAN_LENGTH, SpanReader, SpanWriter } from '../../src/capture/spans.ts';

const part = fc.tuple(fc.nat(2), fc.nat(6), fc.integer({ min: 1, max: 4 }));

test('each row has the request and position that were written, in as few spans as can be', () => {
  fc.assert(
    fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
      const writer = new SpanWriter(parts.length);
      const written: [request: number, position: number][] = [];
      for (const [request, position, count] of parts) {
        writer.add(request, position, count);
        for (let i = 0; i < count; i++) written.push([request, position + i]);
      }
      const deltas = writer.deltas(new Uint8Array(written.length));
      const read: [request: number, position: number][] = [];
      for (const span = new SpanReader(deltas); span.next();) {
        expect(span.row).toBe(read.length);
        for (let i = 0; i < span.count; i++) read.push([span.requestIndex, span.position + i]);
      }
      expect(read).toEqual(written);
      expect(deltas.numRows).toBe(written.length);
      const breaks = written.filter(
        ([request, position], i) => i === 0 || written[i - 1]![0] !== request || written[i - 1]![1] !== position - 1,
      );
      expect(deltas.indexLength).toBe(breaks.length * SPAN_LENGTH);
    }),
  );
});
