/** Several choices in one request: all are taken or none, and the usage counts them all. */

import { expect, test } from 'vitest';
import { closeAfterTest, eventsOf, expectNothingLeft, post, startServer, type WireBody } from './helpers.ts';

const prompt = Array.from({ length: 40 }, (_, i) => 1 + ((i * 7) % 90));
const long = { prompt: [9, 8, 7], max_tokens: 3000, ignore_eos: true, stream: true };

test('a request of which one choice is refused leaves none of the others behind', async () => {
  const server = closeAfterTest(await startServer());
  const client = new AbortController();
  const blocking = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...long, request_id: 'job-2' }),
    signal: client.signal,
  });
  expect(blocking.status).toBe(200);

  // Its third choice would be called "job-2".
  const refused = await post(server, '/v1/completions', {
    prompt,
    n: 3,
    max_tokens: 3000,
    ignore_eos: true,
    request_id: 'job',
  });
  expect(refused.status).toBe(400);
  expect(refused.body.error.message).toContain('job-2');

  // The engine refuses an id that is alive, so the first two choices are gone.
  for (const id of ['job-0', 'job-1']) {
    const again = await post(server, '/v1/completions', { prompt, max_tokens: 2, request_id: id });
    expect([id, again.status, again.body.usage?.completion_tokens]).toEqual([id, 200, 2]);
  }
  client.abort();
  await expectNothingLeft(server);
});

test('the usage counts the tokens of every choice, and the prompt once', async () => {
  const server = closeAfterTest(await startServer());
  const asked = { prompt, n: 3, max_tokens: 5, ignore_eos: true };
  const expected = { prompt_tokens: 40, completion_tokens: 15, total_tokens: 55 };

  // The later choices hit the blocks of the first one, which found nothing.
  const full = await post(server, '/v1/completions', { ...asked, cache_salt: 'full' });
  expect(full.body.choices).toHaveLength(3);
  expect(full.body.usage).toEqual({ ...expected, prompt_tokens_details: { cached_tokens: 0 } });

  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...asked, cache_salt: 'streamed', stream: true, stream_options: { include_usage: true } }),
  });
  const events = eventsOf(await response.text());
  expect(events.at(-1)).toBe('[DONE]');
  const { usage } = JSON.parse(events.at(-2)!) as WireBody;
  expect(usage).toEqual({ ...expected, prompt_tokens_details: { cached_tokens: 0 } });

  // Two prompts with two choices each.
  const several = await post(server, '/v1/completions', { ...asked, prompt: [prompt, [3, 2, 1]], n: 2 });
  expect(several.body.usage).toMatchObject({ prompt_tokens: 43, completion_tokens: 20, total_tokens: 63 });
});
