/** `routed-experts engine`: an engine core that vLLM's own frontend attaches to. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { VllmEngine, type VllmEngineConfig } from '../../serve/vllm-frontend/vllm-engine.ts';
import { ROWS_FOR, type RowsFor } from '../../serve/vllm-frontend/wire/sampling-map.ts';
import { endAtOnce, endProcess } from '../end-process.ts';
import { finite, whole } from '../options.ts';
import { nextSignal } from '../signals.ts';
import { addEngineFlags, checkEngineFlags, engineOfFlags, type EngineFlags } from './engine-flags.ts';

type Flags = EngineFlags & {
  connect: string;
  dataParallelRank: number;
  routedExperts: RowsFor;
  once: boolean;
  handshakeTimeout: number;
  maxMessageBytes: number;
  vocabSize?: number;
  parallelConfigHash?: string;
  logLevel: 'warn' | 'info' | 'silent';
};

/** vLLM's defaults of --data-parallel-address and --data-parallel-rpc-port. */
const FRONTEND = 'tcp://127.0.0.1:29550';

/** An API server that is not reached for so long is gone. */
const GONE_AFTER_MS = 1000;

export function engineCommand(): Command {
  const command = new Command('engine')
    .description('Be the engine core of vLLM’s own frontend: vllm serve MODEL --data-parallel-size-local 0')
    .option('--connect <address>', 'of the frontend: its --data-parallel-address and -rpc-port', address, FRONTEND)
    .option('--data-parallel-rank <n>', 'which of the frontend’s engines this is', whole(0, 65_535), 0)
    .addOption(
      new Option('--routed-experts <for>', 'rows for all requests, or for those with extra_args.return_routed_experts')
        .choices(ROWS_FOR)
        .default('all'),
    )
    .option('--once', 'end with the frontend', true)
    .option('--no-once', 'look for the next frontend when one is gone')
    .option('--handshake-timeout <s>', 'how long a frontend may take to appear', finite(0.1, 86_400), 300)
    .option('--max-message-bytes <n>', 'longest request that is read', whole(1024, 2 ** 31), 64 * 2 ** 20)
    .option('--vocab-size <n>', 'of the frontend’s tokenizer (default: the model’s)', whole(2, 2 ** 24))
    .option('--parallel-config-hash <hash>', 'of a frontend of several engines with a MoE config')
    .addOption(new Option('--log-level <level>', 'of the log on stderr').choices(LOG_LEVELS).default('info'));
  return addEngineFlags(command, { design: 'slot-store', rowsLayers: 'all' }).action((flags: Flags) => {
    const { role, kvPort, pdRows } = flags;
    // With KV from elsewhere rows must come with it, which they do under this design only.
    const isShared = role !== undefined || kvPort !== undefined;
    if (isShared && command.getOptionValueSource('design') !== 'cli') flags.design = 'deltas';
    checkEngineFlags(flags, command);
    if (pdRows !== 'with-kv') {
      throw RoutedExpertsError.of('BAD_VALUE', '--pd-rows', pdRows, 'with-kv: vLLM has no other way for rows');
    }
    return run(flags);
  });
}

const LOG_LEVELS = ['silent', 'warn', 'info'] as const;

function address(text: string): string {
  if (/^tcp:\/\/[^\s:/]+:\d{1,5}$|^tcp:\/\/\[[\da-f:]+\]:\d{1,5}$/i.test(text)) return text;
  throw new InvalidArgumentError('Give the address of a frontend, like tcp://127.0.0.1:29550.');
}

async function run(flags: Flags): Promise<void> {
  const engine = await VllmEngine.start(toConfig(flags));
  const { description } = engine.served.engine.devices[0]!;
  console.log(`routed-experts engine: ${flags.model} on ${description}, for the vLLM frontend at ${flags.connect}`);
  void nextSignal().then((signal) => {
    console.error(`${signal}: ${engine.numRequests} requests are aborted`);
    engine.stop();
    // A second signal means now.
    void nextSignal().then(() => endAtOnce(1));
  });
  try {
    await engine.run();
  } catch (error) {
    if (error instanceof RoutedExpertsError && FRONTEND_ERRORS.includes(error.code)) throw error;
    console.error(`error: the engine has stopped: ${error instanceof Error ? error.message : String(error)}`);
    await endProcess(1);
  }
  await endProcess(0);
}

/** There was nothing to serve. */
const FRONTEND_ERRORS: readonly string[] = ['NO_FRONTEND', 'BAD_FRONTEND'];

function toConfig(flags: Flags): VllmEngineConfig {
  const shown = LOG_LEVELS.indexOf(flags.logLevel);
  const engine = engineOfFlags(flags);
  const { model } = engine;
  return {
    engine: { ...engine, model: { ...model, vocabSize: flags.vocabSize ?? model.vocabSize } },
    address: flags.connect,
    engineIndex: flags.dataParallelRank,
    rowsFor: flags.design === 'off' ? 'none' : flags.routedExperts,
    once: flags.once,
    timeoutMs: flags.handshakeTimeout * 1e3,
    goneAfterMs: GONE_AFTER_MS,
    maxMessageBytes: flags.maxMessageBytes,
    parallelConfigHash: flags.parallelConfigHash ?? null,
    log: (level, text) => {
      if (LOG_LEVELS.indexOf(level) <= shown) console.error(`${level}: ${text}`);
    },
  };
}
