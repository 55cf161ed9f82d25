import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule, type OpenAPIObject } from '@nestjs/swagger';

/** Serves `/openapi.json`, and `/docs` to look at it. Open to anyone: it says nothing that the source does not. */
export function serveOpenApi(app: NestFastifyApplication): OpenAPIObject {
  const config = new DocumentBuilder()
    .setTitle('Novix Gateway for xAI Grok')
    .setDescription('OpenAI-compatible data plane under /v1, administration under /admin/v1.')
    .setVersion('1')
    .setOpenAPIVersion('3.1.0')
    .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'JWT' })
    .build();
  const document = SwaggerModule.createDocument(app, config, { operationIdFactory: (controller, method) => `${controller.replace(/Controller$/, '')}_${method}` });
  nameOperations(document);
  SwaggerModule.setup('docs', app, document, { jsonDocumentUrl: '/openapi.json', raw: ['json'], customSiteTitle: 'Novix Gateway API' });
  return document;
}

/** A method with two paths gets `name[0]` and `name[1]`, which are names in no language. */
function nameOperations(document: OpenAPIObject): void {
  for (const path of Object.values(document.paths)) {
    for (const operation of Object.values(path) as { operationId?: string }[]) {
      if (operation.operationId) operation.operationId = operation.operationId.replace(/\[(\d+)\]$/, (_match, index: string) => (index === '0' ? '' : `_alias${index}`));
    }
  }
}
