/** `routed-experts serve`: an OpenAI-compatible server that returns routed experts. */

import { Command, Option } from 'commander';
import type { HttpLimits, ServeConfig } from '../serve/serve-config.ts';
import { defaultLimits } from '../serve/serve-config.ts';
import { Server } from '../serve/server.ts';
import { endAtOnce, endProcess } from './end-process.ts';
import { addEngineFlags, checkEngineFlags, engineOfFlags, type EngineFlags } from './engine/engine-flags.ts';
import { finite, whole } from './options.ts';
import { clientConfig, clientOptions, toPace, type ClientFlags } from './server/client-flags.ts';
import { nextSignal } from './signals.ts';

type Flags = EngineFlags &
  ClientFlags & {
    servedModelName?: string;
    host: string;
    port: number;
    apiKey?: string;
    maxConcurrent: number;
    maxBodyBytes: number;
    requestTimeout: number;
    stallTimeout: number;
    drainTimeout: number;
    logLevel: ServeConfig['logLevel'];
  };

export function serveCommand(): Command {
  const serving = new Command('serve').description(
    'Serve completions, chat and tokens over HTTP, with the routed experts of every request that asks',
  );
  const command = addEngineFlags(serving, { design: 'deltas', rowsLayers: 'routers' })
    .option('--served-model-name <name>', 'the name that clients use (default: the model’s)')
    .option('--host <address>', 'address to listen on; anything but loopback lets others in', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 = any free one', whole(0, 65_535), 8000)
    .option('--api-key <key>', 'ask for this key (default: the environment’s ROUTED_EXPERTS_API_KEY, else none)')
    .option(
      '--max-concurrent <n>',
      'choices served at once; more get 429',
      whole(1, 65_535),
      defaultLimits.maxConcurrent,
    )
    .option('--max-body-bytes <n>', 'longest request body', whole(1, 2 ** 30), defaultLimits.bodyBytes)
    .option(
      '--request-timeout <s>',
      'until a request must have arrived',
      finite(0.1, 3600),
      defaultLimits.requestMs / 1e3,
    )
    .option(
      '--stall-timeout <s>',
      'a client that reads nothing for this long is cut off',
      finite(0.1, 86_400),
      defaultLimits.stallMs / 1e3,
    )
    .option('--drain-timeout <s>', 'after SIGTERM, until what still runs is aborted', finite(0, 86_400), 30)
    .addOption(
      new Option('--log-level <level>', 'of the log on stderr')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('info'),
    );
  for (const option of clientOptions()) command.addOption(option);
  return command.action((flags: Flags) => {
    checkEngineFlags(flags, command);
    return serve(flags);
  });
}

async function serve(flags: Flags): Promise<void> {
  const server = await Server.start(toConfig(flags));
  const { description } = server.host.engine.devices[0]!;
  console.log(`routed-experts serves ${flags.servedModelName ?? flags.model} on ${server.url} (${description})`);
  const signal = await nextSignal();
  const numKept = server.host.kv?.numKept ?? 0;
  const kept = numKept === 0 ? '' : `, KV of ${numKept} kept for others for ${flags.kvLease} s at most`;
  console.error(`${signal}: taking no new requests, ${server.numActive} in progress${kept}`);
  // A second signal means now.
  void nextSignal().then(() => endAtOnce(1));
  await server.close(flags.drainTimeout * 1e3);
  await endProcess(0);
}

function toConfig(flags: Flags): ServeConfig {
  const limits: HttpLimits = {
    ...defaultLimits,
    bodyBytes: flags.maxBodyBytes,
    requestMs: flags.requestTimeout * 1e3,
    headersMs: Math.min(defaultLimits.headersMs, flags.requestTimeout * 1e3),
    stallMs: flags.stallTimeout * 1e3,
    maxConcurrent: flags.maxConcurrent,
  };
  return {
    engine: { ...engineOfFlags(flags), pace: toPace(flags), followsSteps: flags.saveRows !== undefined },
    servedModel: flags.servedModelName ?? flags.model,
    host: flags.host,
    port: flags.port,
    apiKey: flags.apiKey ?? process.env['ROUTED_EXPERTS_API_KEY'] ?? null,
    limits,
    ...clientConfig(flags),
    logLevel: flags.logLevel,
    log: process.stderr,
  };
}
