/**
 * Request queues: the order of a naive sorted (or plain) array, under any mix of adding, prepending, taking and
 * removing from the middle.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { comesBefore, createRequestQueue } from '../../src/engine/request-queue.ts';
import { QueueName, Request } from '../../src/engine/request.ts';

const requestOf = (index: number, priority: number, arrivalTime: number): Request =>
  new Request(index, {
    requestId: `r${index % 7}`,
    promptTokenIds: Uint32Array.of(1),
    sampling: {
      maxTokens: 1,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: false,
      routedExpertsPromptStart: 0,
    },
    priority,
    arrivalTime,
    cacheSalt: null,
  });

const operations = fc.array(
  fc.record({
    kind: fc.constantFrom('add', 'add', 'add', 'prepend', 'take', 'remove'),
    a: fc.nat({ max: 1000 }),
    priority: fc.integer({ min: -20, max: 20 }),
    arrivalTime: fc.nat({ max: 3 }),
  }),
  { minLength: 30, maxLength: 150 },
);

describe.each(['fcfs', 'priority'] as const)('%s', (policy) => {
  test('it keeps the order of a naive array', () => {
    fc.assert(
      fc.property(operations, (steps) => {
        const queue = createRequestQueue(policy, QueueName.waiting);
        let naive: Request[] = [];
        let index = 0;
        for (const { kind, a, priority, arrivalTime } of steps) {
          if (kind === 'add' || kind === 'prepend') {
            const request = requestOf(index, priority, arrivalTime);
            index += 1;
            if (kind === 'add') queue.add(request);
            else queue.prepend(request);
            naive = kind === 'add' ? [...naive, request] : [request, ...naive];
            if (policy === 'priority') naive.sort((x, y) => (comesBefore(x, y) ? -1 : 1));
          } else if (naive.length > 0) {
            const at = kind === 'take' ? 0 : a % naive.length;
            const [request] = naive.splice(at, 1);
            queue.remove(request!);
            expect(request!.queueName).toBe(QueueName.none);
          }
          expect(queue.length).toBe(naive.length);
          expect(queue.peek()).toBe(naive[0] ?? null);
          expect(queue.toArray()).toEqual(naive);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('a request that it does not hold cannot be taken from it', () => {
    const queue = createRequestQueue(policy, QueueName.waiting);
    const other = createRequestQueue(policy, QueueName.skipped);
    const request = requestOf(0, 0, 0);
    other.add(request);
    expect(() => queue.remove(request)).toThrow('not in the queue');
    other.remove(request);
    expect(() => other.remove(request)).toThrow('not in the queue');
  });
});

test('priority: smaller number, then earlier arrival, then id, then admission', () => {
  const ranked = [requestOf(9, 0, 5), requestOf(8, 1, 1), requestOf(7, 1, 2), requestOf(3, 1, 2), requestOf(10, 1, 2)];
  const sorted = ranked.toSorted((a, b) => (comesBefore(a, b) ? -1 : 1));
  expect(sorted.map(({ index }) => index)).toEqual([9, 8, 7, 3, 10]);
});
