/** OHIF over the archive's DICOMweb, which the same server passes on: one origin, so that no browser has to be persuaded. */
window.config = {
  name: 'deploy/viewer/app-config.js',
  routerBasename: null,
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'archive',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'archive',
      configuration: {
        friendlyName: 'Archive',
        name: 'archive',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        supportsReject: false,
        supportsStow: false, // the server passes on nothing but questions
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        enableStudyLazyLoad: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        singlepart: 'bulkdata,pdf,video',
        bulkDataURI: { enabled: true },
        // Orthanc takes the names of media types without quotation marks, and hands out pixels as they are stored.
        omitQuotationForMultipartRequest: true,
        acceptHeader: ['multipart/related; type=application/octet-stream; transfer-syntax=*'],
      },
    },
  ],
};
