import { Module, type DynamicModule } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { Registry } from 'prom-client';
import { HealthController } from './health.controller.ts';
import { Health } from './health.ts';
import { MetricsController } from './metrics.controller.ts';

/** Probes and metrics: on the main port, or alone on the management port. */
@Module({})
export class OperationsModule {
  static forRoot(health: Health, registry: Registry): DynamicModule {
    return {
      module: OperationsModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, MetricsController],
      providers: [{ provide: Health, useValue: health }, { provide: Registry, useValue: registry }],
    };
  }
}
