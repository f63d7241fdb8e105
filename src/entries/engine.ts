/**
 * `routed-experts/engine`: the engine core by itself, and every contract around it. For a driver of one's own, and for
 * a capture design of one's own. Nothing of Node, no device, no thread.
 *
 *     const engine = new EngineCore(config, engineHalf);      engineHalf: of a design, or null
 *     engine.addRequest(request);
 *     for (let step = engine.beginStep(); step !== null; step = engine.beginStep())
 *       for (const output of engine.finishStep(run(step))) …   run: SchedulerOutput → ModelRunnerOutput
 *
 * Sizes are in tokens, token and expert ids are u32. What it throws is a `RoutedExpertsError` with a code.
 */

export { EngineCore, type EngineStats } from '../engine/engine-core.ts';

// Requests in, outputs out.
export type { EngineRequest, SamplingParams } from '../contract/request.ts';
export type { EngineCoreOutput, FinishReason, PrefillStatistics } from '../contract/engine-core-output.ts';
export type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
export { RoutedExpertsError, type ErrorCode } from '../contract/errors.ts';

// Steps to a worker, and back.
export {
  PLACEHOLDER_TOKEN,
  RequestKind,
  type NewRequestData,
  type SchedulerOutput,
} from '../contract/scheduler-output.ts';
export type { ModelRunnerOutput, RoutedExpertDeltas } from '../contract/model-runner-output.ts';

// Sizes and shapes.
export type {
  EngineConfig,
  ExpertGroups,
  ModelConfig,
  RouterScoring,
  RoutingFunction,
  RowDtype,
  SchedulingPolicy,
} from '../contract/config.ts';

// The two halves of a capture design, and what they see.
export type {
  BlockingReads,
  CaptureEngineHalf,
  CaptureLiveCounts,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../contract/capture.ts';
export type { CaptureRequest } from '../contract/request.ts';
export type { BoundKernel, CommandRecorder, Device, DeviceBuffer, Kernel } from '../contract/device.ts';

// KV that comes from elsewhere.
export type {
  EvictedBlock,
  EvictedRows,
  ExternalKv,
  KvConnector,
  KvLoad,
  KvLoadOutcome,
  PrefixQuestion,
} from '../contract/kv-connector.ts';
