/** Bounds and pauses of the export. */
export interface ExportLimits {
  batchEventsMax: number;
  /** Of leaves, before they are put into envelopes. */
  batchBytesMax: number;
  /** Between looks at a log that has nothing new. */
  idlePauseMs: number;
  /** Between looks at which sinks there are, and at how far behind they are: within a second a change acts on all replicas. */
  reconcilePauseMs: number;
  electionPauseMs: number;
  backoffBaseMs: number;
  /** Least pause after what only a change of settings will cure. */
  slowRetryMs: number;
  requestTimeoutMs: number;
  connectTimeoutMs: number;
  /** Between asking a HEC whether it has indexed a batch, and for how long to ask. */
  ackPauseMs: number;
  ackTimeoutMs: number;
  /** Batches of which a HEC may have the acknowledgement open: it takes seconds for each. */
  hecBatchesInFlight: number;
  /** How long a syslog receiver may take to close in order. */
  closeTimeoutMs: number;
  parkedRowsMax: number;
  /** Beyond either, operators are told. */
  lagEventsMax: number;
  lagAgeMsMax: number;
}

export const EXPORT_LIMITS: ExportLimits = {
  batchEventsMax: 500, batchBytesMax: 1024 * 1024, idlePauseMs: 250, reconcilePauseMs: 500, electionPauseMs: 1_000, backoffBaseMs: 1_000, slowRetryMs: 30_000, requestTimeoutMs: 30_000,
  connectTimeoutMs: 5_000, ackPauseMs: 1_000, ackTimeoutMs: 300_000, hecBatchesInFlight: 8, closeTimeoutMs: 30_000, parkedRowsMax: 10_000, lagEventsMax: 10_000, lagAgeMsMax: 300_000,
};
